//! A method as callers name it: parsed once, and where its calls go looked up once a list.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use semver::VersionReq;
use wharf_schema::{Fingerprint, MethodPath, NameError, ServiceName};

use crate::balance::{Listed, Node, Selection, Wanted, select};
use crate::discovery::{Discovery, Followed};
use crate::error::Failure;
use crate::methods::Method;

/// Names of a method at endpoints of different versions that are kept.
const MAX_EXACT: usize = 64;

/// Whom a client calls.
pub(crate) enum Target {
    /// Whoever the registry says.
    Registry(Box<Discovery>),
    /// One host.
    Direct(Arc<Selection>),
}

/// A service, or a method of it, that is called.
pub(crate) struct Named {
    wanted: Wanted,
    /// `None` where the service itself is asked about.
    method: Option<String>,
    /// As it was meant, in one spelling.
    canonical: Arc<str>,
    /// The signature that this client's first call was answered for.
    first_seen: Arc<OnceLock<Fingerprint>>,
    followed: OnceLock<Arc<Followed>>,
    chosen: ArcSwapOption<Chosen>,
    exact: Mutex<Vec<(Arc<ServiceName>, Arc<str>)>>,
}

/// What was chosen out of one list.
struct Chosen {
    list: Arc<Listed>,
    selection: Arc<Selection>,
}

impl Named {
    /// A method by its name in any spelling, in the newest version that is allowed.
    pub(crate) fn parse(name: &str, requirement: Option<VersionReq>) -> Result<Self, NameError> {
        let MethodPath { service, method } = MethodPath::parse(name)?;
        let wanted = Wanted { service, requirement, fingerprint: None };
        Ok(Named::new(wanted, Some(method)))
    }

    pub(crate) fn new(wanted: Wanted, method: Option<String>) -> Self {
        let canonical = match &method {
            Some(method) => format!("{}.{method}", wanted.service),
            None => wanted.service.to_string(),
        };
        Named {
            wanted,
            method,
            canonical: canonical.into(),
            first_seen: Arc::default(),
            followed: OnceLock::new(),
            chosen: ArcSwapOption::empty(),
            exact: Mutex::default(),
        }
    }

    pub(crate) fn canonical(&self) -> &Arc<str> {
        &self.canonical
    }

    pub(crate) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// The name in kebab-case, without the service's.
    pub(crate) fn method(&self) -> Option<&str> {
        self.method.as_deref()
    }

    /// As it is resolved at a node.
    pub(crate) fn at(&self, node: &Node, fingerprint: Option<Fingerprint>) -> Method {
        Method { name: self.name_at(node), fingerprint, first_seen: self.first_seen.clone() }
    }

    /// What to call it at a node. Where versions matter, a host that serves several is told which.
    pub(crate) fn name_at(&self, node: &Node) -> Arc<str> {
        if self.wanted.requirement.is_none() || node.name.version.is_none() {
            return self.canonical.clone();
        }
        let mut exact = self.exact.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, name)) = exact.iter().find(|(service, _)| *service == node.name) {
            return name.clone();
        }
        let name: Arc<str> = match &self.method {
            Some(method) => format!("{}.{method}", node.name).into(),
            None => node.name.to_string().into(),
        };
        if exact.len() >= MAX_EXACT {
            exact.clear();
        }
        exact.push((node.name.clone(), name.clone()));
        name
    }

    /// The nodes that would do, by the list as it stands.
    pub(crate) async fn selection(
        &self,
        target: &Target,
        now: Instant,
        deadline: Instant,
    ) -> Result<Arc<Selection>, Failure> {
        let discovery = match target {
            Target::Direct(selection) => return Ok(selection.clone()),
            Target::Registry(discovery) => discovery,
        };
        let followed = match self.followed.get() {
            Some(followed) => followed,
            None => {
                let followed = discovery.follow(&self.wanted.service.interface)?;
                self.followed.get_or_init(|| followed)
            }
        };
        followed.touch(now);
        if let Some(chosen) = &*self.chosen.load()
            && followed.is_current(&chosen.list)
        {
            return Ok(chosen.selection.clone());
        }
        let list = discovery.list(followed, deadline).await?;
        let selection = Arc::new(select(&self.wanted, &list)?);
        let chosen = Chosen { list, selection: selection.clone() };
        self.chosen.store(Some(Arc::new(chosen)));
        Ok(selection)
    }
}
