//! A method, as callers name it. The name is parsed once, and its nodes are selected once per list.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

#[cfg(feature = "discovery")]
use arc_swap::ArcSwapOption;
use semver::VersionReq;
use wharf_schema::{Fingerprint, MethodPath, NameError};

#[cfg(feature = "discovery")]
use crate::balance::{KnownNodes, Node, net_rpc_nodes, select};
use crate::balance::{Selection, Wanted};
use crate::binds::Binds;
#[cfg(feature = "discovery")]
use crate::discovery::{Discovery, Followed};
use crate::error::Failure;
use crate::methods::MethodKey;

/// Where a client's calls go.
pub(crate) enum Target {
    /// To the endpoints that the registry lists.
    #[cfg(feature = "discovery")]
    Registry(Box<Discovery>),
    /// To one host.
    Direct(Arc<Selection>),
}

/// A service, or a method of it, that is called.
pub(crate) struct Named {
    wanted: Wanted,
    /// `None` if the question is about the service itself.
    method: Option<String>,
    /// The full name in one spelling: `demo:arith/arith@^0.1.multiply`.
    canonical: Arc<str>,
    /// The name without package and version: `arith.multiply`.
    short: String,
    service: String,
    /// The client was told that the method may run more than once.
    idempotent: bool,
    /// How connections resolve it, for callers that give no signature.
    resolved: Arc<MethodKey>,
    /// The same for callers that give one. Nearly always they all give the same.
    resolved_as: OnceLock<Arc<MethodKey>>,
    #[cfg(feature = "discovery")]
    followed: OnceLock<Arc<Followed>>,
    #[cfg(feature = "discovery")]
    chosen: ArcSwapOption<Chosen>,
}

/// The selection from one list.
#[cfg(feature = "discovery")]
struct Chosen {
    list: Arc<KnownNodes>,
    selection: Arc<Selection>,
}

impl Named {
    /// A method by its name in any spelling. The newest version that is allowed is called.
    pub(crate) fn parse(
        name: &str,
        requirement: Option<VersionReq>,
        idempotent: &[MethodPath],
        binds: &Binds,
    ) -> Result<Self, NameError> {
        let MethodPath { mut service, method } = MethodPath::parse(name)?;
        binds.complete(&mut service);
        // A version in the name itself takes precedence.
        if service.version.is_none() && service.requirement.is_none() {
            service.requirement = requirement;
        }
        let wanted = Wanted { service, fingerprint: None };
        Ok(Named::new(wanted, Some(method), idempotent))
    }

    /// A method, or the service itself. `idempotent` has all methods that may run more than once.
    pub(crate) fn new(wanted: Wanted, method: Option<String>, idempotent: &[MethodPath]) -> Self {
        let service = wanted.service.to_string();
        let name = |service: &str| match &method {
            Some(method) => format!("{service}.{method}"),
            None => service.to_owned(),
        };
        let (canonical, short) = (name(&service), name(&wanted.service.interface));
        let is_it = |path: &MethodPath| {
            let (a, b) = (&path.service, &wanted.service);
            // Either of the two may leave out its package.
            let alike = a.interface == b.interface
                && (a.package.is_none() || b.package.is_none() || a.package == b.package);
            alike && method.as_ref() == Some(&path.method)
        };
        let idempotent = idempotent.iter().any(is_it);
        let canonical: Arc<str> = canonical.into();
        Named {
            resolved: Arc::new(MethodKey::new(canonical.clone(), None, Arc::default())),
            resolved_as: OnceLock::new(),
            canonical,
            short,
            service,
            idempotent,
            wanted,
            method,
            #[cfg(feature = "discovery")]
            followed: OnceLock::new(),
            #[cfg(feature = "discovery")]
            chosen: ArcSwapOption::empty(),
        }
    }

    pub(crate) fn canonical(&self) -> &Arc<str> {
        &self.canonical
    }

    /// `arith.multiply`, however the caller spelled it.
    pub(crate) fn short(&self) -> &str {
        &self.short
    }

    /// The service, with the package and version as far as the caller gave them.
    pub(crate) fn service(&self) -> &str {
        &self.service
    }

    pub(crate) fn is_idempotent(&self) -> bool {
        self.idempotent
    }

    pub(crate) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// The method's name in kebab-case, without the service.
    pub(crate) fn method(&self) -> Option<&str> {
        self.method.as_deref()
    }

    /// How connections resolve it.
    pub(crate) fn resolved_as(&self, fingerprint: Option<Fingerprint>) -> Arc<MethodKey> {
        if fingerprint.is_none() {
            return self.resolved.clone();
        }
        let make = || {
            let first_seen = self.resolved.first_seen.clone();
            Arc::new(MethodKey::new(self.canonical.clone(), fingerprint, first_seen))
        };
        let kept = self.resolved_as.get_or_init(make);
        if kept.fingerprint == fingerprint { kept.clone() } else { make() }
    }

    /// The selection, if it was made from the current list.
    pub(crate) fn selection_at_hand(
        &self,
        target: &Target,
        now: Instant,
    ) -> Option<Arc<Selection>> {
        match target {
            Target::Direct(selection) => Some(selection.clone()),
            #[cfg(feature = "discovery")]
            Target::Registry(_) => {
                let followed = self.followed.get()?;
                followed.touch(now);
                let chosen = self.chosen.load();
                let chosen = chosen.as_ref()?;
                followed.is_current(&chosen.list).then(|| chosen.selection.clone())
            }
        }
    }

    /// The selection from the current list, which is looked up if necessary.
    pub(crate) async fn selection(
        &self,
        target: &Target,
        now: Instant,
        deadline: Instant,
    ) -> Result<Arc<Selection>, Failure> {
        if let Some(selection) = self.selection_at_hand(target, now) {
            return Ok(selection);
        }
        match target {
            Target::Direct(selection) => Ok(selection.clone()),
            #[cfg(feature = "discovery")]
            Target::Registry(discovery) => self.selected(discovery, now, deadline).await,
        }
    }

    #[cfg(feature = "discovery")]
    async fn selected(
        &self,
        discovery: &Discovery,
        now: Instant,
        deadline: Instant,
    ) -> Result<Arc<Selection>, Failure> {
        let followed = match self.followed.get() {
            Some(followed) => followed,
            None => {
                let followed = discovery.follow(&self.wanted.service.interface)?;
                self.followed.get_or_init(|| followed)
            }
        };
        followed.touch(now);
        let list = discovery.list(followed, deadline).await?;
        let selection = Arc::new(select(&self.wanted, &list)?);
        let chosen = Chosen { list, selection: selection.clone() };
        self.chosen.store(Some(Arc::new(chosen)));
        Ok(selection)
    }

    /// The endpoints that speak Go's net/rpc.
    #[cfg(feature = "discovery")]
    pub(crate) async fn net_rpc_nodes(
        &self,
        target: &Target,
        deadline: Instant,
    ) -> Result<Vec<Arc<Node>>, Failure> {
        let Target::Registry(discovery) = target else { return Ok(Vec::new()) };
        let service = &self.wanted.service;
        let followed = discovery.follow(&service.interface)?;
        let list = discovery.list(&followed, deadline).await?;
        Ok(net_rpc_nodes(service, &list))
    }
}
