//! A principal: its name, its rights, and what it has of a server.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use super::rights::{Callee, Calls};
use crate::Secret;
use crate::tls::{Names, Role};

/// Who asks.
#[derive(Debug)]
pub struct Principal {
    /// No other principal of this process has or had it.
    pub(super) id: u64,
    pub(super) rate: Option<DefaultDirectRateLimiter>,
    /// How many connections it has.
    pub(super) connections: Arc<AtomicU32>,
    /// Its name, under which it pays for what it takes. Nobody pays for those who are nobody in particular.
    pub(super) payer: Option<Arc<str>>,
    pub(super) written: Written,
    /// It is written nowhere: it is whom its certificate names.
    pub(super) certified: Option<Arc<Names>>,
}

/// A connection of a principal, which is counted until this is dropped.
#[derive(Debug)]
pub struct Connected(Option<Arc<AtomicU32>>);

impl Drop for Connected {
    fn drop(&mut self) {
        if let Some(connections) = &self.0 {
            connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What is written of a principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) name: String,
    pub(super) secret: Option<Secret>,
    /// A name that its certificates have.
    pub(super) certificate: Option<String>,
    pub(super) calls: Calls,
    pub(super) scopes: Scopes,
    /// The services that its hosts may announce in a registry. `None`: all.
    pub(super) announces: Option<Calls>,
    /// Names of hosts that it may write in a registry. `*` at the end stands for anything.
    pub(super) hosts: Vec<String>,
    pub(super) quota: Option<Quota>,
    pub(super) max_connections: Option<NonZeroU32>,
    /// Many callers share it, and each pays for itself.
    pub(super) is_shared: bool,
}

/// What a principal may do in a registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scopes {
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) admin: bool,
}

impl Written {
    pub(super) fn anonymous(calls: Calls) -> Self {
        Written {
            name: "anonymous".to_owned(),
            secret: None,
            certificate: None,
            calls,
            scopes: Scopes::default(),
            announces: None,
            hosts: Vec::new(),
            quota: None,
            max_connections: None,
            is_shared: false,
        }
    }
}

impl Principal {
    pub(super) fn new(written: Written) -> Arc<Self> {
        Principal::of(written, None)
    }

    fn of(written: Written, certified: Option<Arc<Names>>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let rate = written.quota.map(RateLimiter::direct);
        let is_somebody =
            certified.is_some() || written.secret.is_some() || written.certificate.is_some();
        let payer = (is_somebody && !written.is_shared).then(|| written.name.as_str().into());
        let connections = Arc::default();
        Arc::new(Principal { id, rate, connections, payer, written, certified })
    }

    /// Whom a certificate names. In a registry a host may write what is its own. Others may read there if
    /// they may call anything.
    pub(super) fn certified(names: &Arc<Names>, calls: Calls) -> Arc<Self> {
        let member = names.member();
        let host = member.as_ref().filter(|id| id.role() == Role::Host);
        let written = Written {
            name: member.as_ref().map_or_else(|| names.to_string(), ToString::to_string),
            scopes: Scopes {
                read: member.is_some() && !calls.is_nothing(),
                write: host.is_some(),
                admin: false,
            },
            hosts: host.map(|id| id.name().to_owned()).into_iter().collect(),
            ..Written::anonymous(calls)
        };
        Principal::of(written, Some(names.clone()))
    }

    /// A number that no other principal of this process has or had, not even one with other rights under
    /// the same name.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether it may do everything in a registry.
    #[must_use]
    pub fn administers(&self) -> bool {
        self.written.scopes.admin
    }

    /// Its name, for logs and messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.written.name
    }

    /// Under which name it pays for what it takes of a server. `None` for those who are nobody in particular.
    #[must_use]
    pub fn payer(&self) -> Option<&Arc<str>> {
        self.payer.as_ref()
    }

    /// Counts a connection of it, until what is returned is dropped. `None` if it has as many as it may.
    #[must_use]
    pub fn connect(&self) -> Option<Connected> {
        let Some(max) = self.written.max_connections else { return Some(Connected(None)) };
        let another = |open| (open < max.get()).then_some(open + 1);
        let counted = self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, another);
        counted.ok().map(|_| Connected(Some(self.connections.clone())))
    }

    /// The methods that it may call.
    #[must_use]
    pub fn calls(&self) -> &Calls {
        &self.written.calls
    }

    /// Whether it may read a registry's lists.
    #[must_use]
    pub fn may_read(&self) -> bool {
        self.written.scopes.read || self.written.scopes.admin
    }

    /// Whether it may write anything at all in a registry.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.written.scopes.write || self.written.scopes.admin
    }

    /// Whether it may write what belongs to this host, or to this classic name, in a registry.
    #[must_use]
    pub fn may_write(&self, host: &str) -> bool {
        let own = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => host.starts_with(prefix),
            None => host == pattern,
        };
        self.written.scopes.admin
            || (self.written.scopes.write && self.written.hosts.iter().any(own))
    }

    /// Whether the hosts that it may write may announce this service in a registry.
    #[must_use]
    pub fn may_announce(&self, service: Callee<'_>) -> bool {
        let announces = self.written.announces.as_ref();
        self.written.scopes.admin
            || announces.is_none_or(|announces| announces.has_service(service))
    }

    /// Counts a call or a request.
    ///
    /// # Errors
    /// When it asks too often: how long it has to wait.
    pub fn count(&self) -> Result<(), Duration> {
        let Some(rate) = &self.rate else { return Ok(()) };
        rate.check()
            .map_err(|until| until.wait_time_from(governor::clock::DefaultClock::default().now()))
    }
}
