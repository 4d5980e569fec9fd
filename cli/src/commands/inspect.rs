use crate::args::InspectArguments;
use crate::failure::Failure;
use crate::output::Output;
use wapack_runtime::cancel::Cancel;
pub(crate) fn run(
    _arguments: &InspectArguments,
    _cancel: &Cancel,
    _output: &mut Output,
) -> Result<u8, Failure> {
    Ok(0)
}
