//! `creator`: all phases in one process, in order.

use super::seals::Seals;
use super::{ImagePlaces, ProgramError, Services, analyzer, builder, detector, exporter, restorer};
use crate::event::{Event, Phase};

/// What it is told: what each phase is told.
#[derive(Debug, Clone)]
pub struct Inputs {
    pub analyzer: analyzer::Inputs,
    pub detector: detector::Inputs,
    pub restorer: restorer::Inputs,
    pub builder: builder::Inputs,
    pub exporter: exporter::Inputs,
}

/// Runs them one after the other.
///
/// # Errors
/// Of the first phase that fails; those after it do not run.
///
/// # Spec
/// `platform.md` 0.15 "`creator`"; CRE-01 to CRE-04.
pub fn run(
    inputs: &Inputs,
    images: ImagePlaces<'_>,
    services: &mut Services<'_>,
) -> Result<(), ProgramError> {
    begin(Phase::Analyze, services);
    analyzer::run(&inputs.analyzer, images, services.events)?;
    begin(Phase::Detect, services);
    detector::run_in_creator(&inputs.detector, services)?;
    begin(Phase::Restore, services);
    let restored = restorer::run_in_creator(&inputs.restorer, images, services.events)?;
    let places = exporter::places(&inputs.exporter)?;
    let seals = Seals::take(restored, &places, exporter::owner(&inputs.exporter), services.cancel);
    begin(Phase::Build, services);
    builder::run_in_creator(&inputs.builder, services)?;
    begin(Phase::Export, services);
    let known = seals.unbroken();
    exporter::run_knowing(&known, &inputs.exporter, images, services.cancel, services.events)?;
    Ok(())
}

fn begin(phase: Phase, services: &mut Services<'_>) {
    services.events.event(Event::PhaseStarted { phase });
}
