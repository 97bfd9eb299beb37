//! Where services live: lists from the registry, followed for as long as they are used.
//!
//! One task per service follows its list, so a call never asks the registry. While the registry is
//! down, calls use the last list. A client that starts meanwhile begins with the list in its file.

mod follow;
mod kept;
mod listing;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use wharf_registry_api::{RegistryClient, RegistryError};

pub(crate) use self::follow::Followed;
pub(crate) use self::kept::default_folder;

use self::follow::News;
use self::kept::ListFile;
use crate::balance::KnownNodes;
use crate::endpoints::Endpoints;
use crate::error::Failure;

/// The most services that one client follows.
const MAX_SERVICES: usize = 4096;

/// How lists are kept, and believed.
#[derive(Clone, Debug)]
pub(crate) struct Lists {
    /// Where they are saved.
    pub(crate) folder: Option<PathBuf>,
    /// Whether a list that is suddenly empty is doubted.
    pub(crate) doubts: bool,
}

/// Follows the lists of all services that are called.
pub(crate) struct Discovery {
    registry: RegistryClient,
    endpoints: Arc<Endpoints>,
    lists: Lists,
    followed: Mutex<HashMap<String, Arc<Followed>>>,
}

impl Discovery {
    pub(crate) fn new(registry: RegistryClient, endpoints: Arc<Endpoints>, lists: Lists) -> Self {
        Discovery { registry, endpoints, lists, followed: Mutex::default() }
    }

    pub(crate) fn registry(&self) -> &RegistryClient {
        &self.registry
    }

    /// A service's current list, or the first one to arrive.
    ///
    /// # Errors
    /// When no list arrives before the deadline.
    pub(crate) async fn list(
        &self,
        followed: &Followed,
        deadline: Instant,
    ) -> Result<Arc<KnownNodes>, Failure> {
        if let Some(list) = followed.current() {
            return Ok(list);
        }
        match followed.news(deadline).await {
            News::List(list) => Ok(list),
            News::Failed(error) => Err(self.failed(&error)),
            News::Nothing => {
                Err(Failure::RegistrySilent { url: self.registry.address().to_owned() })
            }
        }
    }

    /// The current lists of all services that are followed.
    pub(crate) fn lists(&self) -> Vec<Arc<KnownNodes>> {
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.values().filter_map(|followed| followed.current()).collect()
    }

    /// Completes when all current lists are saved.
    pub(crate) async fn saved(&self) {
        let followed: Vec<Arc<Followed>> = {
            let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
            followed.values().cloned().collect()
        };
        for followed in followed {
            followed.saved().await;
        }
    }

    /// Follows a service.
    ///
    /// # Errors
    /// When too many are followed.
    pub(crate) fn follow(&self, service: &str) -> Result<Arc<Followed>, Failure> {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = followed.get(service) {
            return Ok(known.clone());
        }
        if followed.len() >= MAX_SERVICES {
            // Most likely their names are wrong. They are followed again when they are called.
            followed.retain(|_, followed| !followed.is_at_rest());
        }
        if followed.len() >= MAX_SERVICES {
            return Err(Failure::NoEndpoint {
                service: service.to_owned(),
                reason: format!(
                    ": this client already follows {MAX_SERVICES} services; use another client"
                ),
                was_there: false,
            });
        }
        let file = self.lists.folder.as_ref();
        let file = file.and_then(|f| ListFile::new(f, &self.registry.addresses(), service));
        let (registry, endpoints) = (self.registry.clone(), self.endpoints.clone());
        let doubts = self.lists.doubts;
        let new = Arc::new(Followed::start(registry, endpoints, service, (file, doubts)));
        followed.insert(service.to_owned(), new.clone());
        Ok(new)
    }

    /// The registry's failure, once more for each call: errors cannot be cloned.
    fn failed(&self, error: &Arc<RegistryError>) -> Failure {
        let url = self.registry.address().to_owned();
        match &**error {
            RegistryError::Refused { problem, .. } => {
                Failure::Registry(RegistryError::Refused { url, problem: problem.clone() })
            }
            RegistryError::Unexpected { what, .. } => {
                Failure::Registry(RegistryError::Unexpected { url, what: what.clone() })
            }
            other => Failure::NoRegistry { message: other.to_string(), source: error.clone() },
        }
    }
}
