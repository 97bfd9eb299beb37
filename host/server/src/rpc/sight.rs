//! What a principal sees of a host's services. What it may not call does not exist for it.

use std::sync::Arc;

use bytes::Bytes;
use wharf_net::principals::{Callee, Principal};
use wharf_schema::{Service, ServiceName};

use crate::plugins::slot::Served;
use crate::plugins::table::Table;

/// The services and methods that one principal may call.
#[derive(Clone, Debug)]
pub(crate) struct Sight(Arc<Principal>);

/// A service with the methods that are seen.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) service: Arc<Service>,
    /// The positions of the methods that are tools for models.
    pub(crate) tools: Vec<usize>,
}

impl Sight {
    pub(crate) fn new(who: Arc<Principal>) -> Self {
        Sight(who)
    }

    /// Whether it has a part of this service, whose name is full.
    pub(crate) fn has(&self, service: &ServiceName) -> bool {
        self.0.calls().has_service(callee(service))
    }

    /// Whether it has this method of a service, whose name is full.
    pub(crate) fn has_method(&self, service: &ServiceName, method: &str) -> bool {
        let has = |name: &str| self.0.calls().of_method(callee(service), name).is_some();
        // WIT allows words in capitals, `get-HTTP`; patterns are in lower case.
        has(method)
            || (method.bytes().any(|byte| byte.is_ascii_uppercase())
                && has(&method.to_ascii_lowercase()))
    }

    /// Whether it has a method of this service, as it is served.
    pub(crate) fn has_any(&self, service: &Service) -> bool {
        let name = service.name();
        self.has_whole(name) || service.methods().iter().any(|m| self.has_method(name, &m.name))
    }

    fn has_whole(&self, service: &ServiceName) -> bool {
        self.0.calls().has_whole_service(callee(service))
    }

    /// What it has of a service.
    pub(crate) fn of(&self, served: &Served) -> Option<Shown> {
        let (service, name) = (&served.service, served.service.name());
        if self.has_whole(name) {
            return Some(Shown { service: service.clone(), tools: served.tools.to_vec() });
        }
        if !self.has_any(service) {
            return None;
        }
        let is_tool = |method: &str| {
            let of = |place: &usize| service.methods().get(*place).map(|method| &method.name[..]);
            served.tools.iter().any(|place| of(place) == Some(method))
        };
        let part = service.part(|method| self.has_method(name, &method.name));
        let methods = part.methods().iter().enumerate();
        let tools = methods.filter(|(_, method)| is_tool(&method.name)).map(|(place, _)| place);
        Some(Shown { tools: tools.collect(), service: Arc::new(part) })
    }

    /// The description of what it has of a service.
    pub(crate) fn document(&self, served: &Served) -> Bytes {
        match self.of(served) {
            Some(_) if self.has_whole(served.service.name()) => served.document.clone(),
            Some(shown) => shown.service.to_document().into(),
            None => Bytes::new(),
        }
    }

    /// All that it has.
    pub(crate) fn all(&self, table: &Table) -> Vec<Shown> {
        table.all_served().iter().filter_map(|served| self.of(served)).collect()
    }

    /// What tells it from the sight of others, for what is kept.
    pub(crate) fn key(&self) -> String {
        match self.0.calls().is_everything() {
            true => String::new(),
            false => format!("{}\n", self.0.id()),
        }
    }
}

fn callee(service: &ServiceName) -> Callee<'_> {
    Callee {
        package: service.package.as_deref().unwrap_or_default(),
        interface: &service.interface,
    }
}
