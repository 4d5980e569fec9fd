//! Removing a manifest. Blobs stay until the registry collects what nothing leads to.

use reqwest::{Method, StatusCode};

use super::Registry;
use super::authorization::Scope;
use super::error::RegistryError;
use super::exchange::{Call, Tried};
use super::publish::failed;
use super::upload::NO_BODY;
use crate::cancel::Cancel;
use crate::oci::digest::Digest;
use crate::oci::reference::Repository;

impl Registry {
    /// Removes a manifest of a repository, and with it every name that leads to it. One that is
    /// gone is removed already.
    ///
    /// # Errors
    /// When the registry does not, as many are set up.
    ///
    /// # Spec
    /// distribution-spec 1.1, "Deleting Manifests".
    pub fn remove(
        &self,
        repository: &Repository,
        digest: &Digest,
        cancel: &Cancel,
    ) -> Result<(), RegistryError> {
        self.shared.named().retain(|name, document| name.name() != repository || document.digest != *digest);
        self.wait(cancel, async {
            let endpoint = self.writable(repository).await?;
            let scope = Scope::delete(repository.path());
            let url = endpoint.url(repository.path(), &format!("manifests/{digest}"));
            let call = Call::new(&endpoint, &scope, Method::DELETE, url);
            let failed = |tried: Tried| failed("remove", &format!("{repository}@{digest}"), &endpoint, tried);
            let answer = self.shared.ask(&call, NO_BODY).await.map_err(failed)?;
            match answer.status {
                StatusCode::ACCEPTED | StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => {
                    Ok(())
                }
                _ => Err(failed(answer.refusal(&self.shared, &call).into())),
            }
        })
    }
}
