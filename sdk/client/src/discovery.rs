//! Where services live: lists from the registry, followed for as long as the client lives.
//!
//! One task a service asks for the list and then waits for its next change, so a call never
//! asks the registry. While the registry is away, the last list stands.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use wharf_registry_api::{
    Code, Endpoint, EndpointList, ListOptions, RegistryClient, RegistryError, State, retry_pauses,
};
use wharf_schema::ServiceName;

use crate::error::Failure;

/// How long one question to the registry waits for a change.
const WAIT: Duration = Duration::from_secs(55);

/// The shortest question, at the end of a time of distrust.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// A registry that has just come up knows nobody yet. For this long, a list that is suddenly empty is
/// not taken from it: about the time in which every host has declared itself again.
const DISTRUST: Duration = Duration::from_secs(15);

/// Services that one client follows at most.
const MAX_SERVICES: usize = 4096;

/// Follows the lists of all services that were called.
pub(crate) struct Discovery {
    registry: RegistryClient,
    followed: Mutex<HashMap<String, Followed>>,
}

struct Followed {
    news: watch::Receiver<News>,
    task: JoinHandle<()>,
}

/// What is known of a service.
#[derive(Clone)]
enum News {
    /// The registry was not heard yet.
    Nothing,
    /// The registry does not answer, and never has.
    Failed(Arc<RegistryError>),
    /// The last list.
    List(Arc<Vec<Known>>),
}

/// An endpoint, as calls choose among them; made once when the list arrives.
struct Known {
    name: ServiceName,
    state: State,
    address: Arc<str>,
}

impl Known {
    fn new(endpoint: Endpoint) -> Self {
        let spec = endpoint.spec;
        // A version that is none can match only a name without one.
        let version = spec.version.and_then(|text| text.parse().ok());
        let name = ServiceName { package: spec.package, interface: spec.service, version };
        Known { name, state: endpoint.state, address: endpoint.address.into() }
    }
}

impl Discovery {
    pub(crate) fn new(registry: RegistryClient) -> Self {
        Discovery { registry, followed: Mutex::default() }
    }

    pub(crate) fn registry(&self) -> &RegistryClient {
        &self.registry
    }

    /// The addresses at which a service takes calls, in the newest version that `name` allows.
    pub(crate) async fn addresses(
        &self,
        name: &ServiceName,
        deadline: Instant,
    ) -> Result<Vec<Arc<str>>, Failure> {
        let mut news = self.follow(&name.interface)?;
        let known = tokio::time::timeout_at(
            deadline.into(),
            news.wait_for(|news| !matches!(news, News::Nothing)),
        )
        .await;
        let known = match known {
            Ok(Ok(news)) => news.clone(),
            Ok(Err(_)) | Err(_) => News::Nothing,
        };
        match known {
            News::List(endpoints) => choose(name, &endpoints),
            News::Failed(error) => Err(self.failed(&error)),
            News::Nothing => {
                Err(Failure::RegistrySilent { url: self.registry.address().to_owned() })
            }
        }
    }

    /// A failure of the registry as often as it is asked for; errors cannot be cloned.
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

    fn follow(&self, service: &str) -> Result<watch::Receiver<News>, Failure> {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = followed.get(service) {
            return Ok(known.news.clone());
        }
        if followed.len() >= MAX_SERVICES {
            // Names that stand for nothing, most likely; they can be asked for again.
            followed
                .retain(|_, f| matches!(&*f.news.borrow(), News::List(list) if !list.is_empty()));
        }
        if followed.len() >= MAX_SERVICES {
            return Err(Failure::NoEndpoint {
                service: service.to_owned(),
                reason: format!(
                    " that is known: this client follows {MAX_SERVICES} services already"
                ),
            });
        }
        let (tell, news) = watch::channel(News::Nothing);
        let task = tokio::spawn(follow(self.registry.clone(), service.to_owned(), tell));
        followed.insert(service.to_owned(), Followed { news: news.clone(), task });
        Ok(news)
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(registry: RegistryClient, service: String, tell: watch::Sender<News>) {
    let mut pauses = retry_pauses();
    let mut index = None;
    let mut distrust_until: Option<Instant> = None;
    let mut listed_anew = false;
    loop {
        let distrusted =
            distrust_until.map(|until| until.saturating_duration_since(Instant::now()));
        let wait = distrusted.map_or(WAIT, |left| left.clamp(SHORTEST_WAIT, WAIT));
        let options =
            ListOptions { newer_than: index.map(|index| (index, wait)), ..Default::default() };
        match registry.endpoints(&service, &options).await {
            Ok(Some(EndpointList { index: newer, endpoints })) => {
                if index.replace(newer).is_some() {
                    // A change that was waited for: all is well.
                    (pauses, listed_anew) = (retry_pauses(), false);
                }
                let known: Vec<Known> = endpoints.into_iter().map(Known::new).collect();
                let had_some = matches!(&*tell.borrow(), News::List(list) if !list.is_empty());
                let too_early = distrusted.is_some_and(|left| !left.is_zero());
                if known.is_empty() && had_some && too_early {
                    continue;
                }
                distrust_until = None;
                tell.send_replace(News::List(Arc::new(known)));
            }
            Ok(None) => {
                pauses = retry_pauses();
                listed_anew = false;
                if distrusted.is_some_and(|left| left.is_zero()) {
                    // It had its time: what it says now, it is believed.
                    index = None;
                }
            }
            Err(error) => {
                // Whatever answers next may be another life of the registry.
                distrust_until.get_or_insert_with(|| Instant::now() + DISTRUST);
                if is_gone(&error) && index.take().is_some() && !listed_anew {
                    // Once at once; a registry that goes on saying so is not asked in a loop.
                    listed_anew = true;
                    continue;
                }
                distrust_until = Some(Instant::now() + DISTRUST);
                tracing::debug!(service, %error, "the registry does not answer; the last list stands");
                tell.send_if_modified(|news| match news {
                    News::List(_) => false,
                    News::Nothing | News::Failed(_) => {
                        *news = News::Failed(Arc::new(error));
                        true
                    }
                });
                if let Some(pause) = pauses.next() {
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

fn is_gone(error: &RegistryError) -> bool {
    error.problem().is_some_and(|problem| problem.code == Code::IndexGone)
}

/// The endpoints of the newest version that is meant and takes calls.
fn choose(name: &ServiceName, known: &[Known]) -> Result<Vec<Arc<str>>, Failure> {
    let named = || known.iter().filter(|endpoint| name.matches(&endpoint.name));
    let serving = || named().filter(|endpoint| endpoint.state == State::Serving);
    let newest = serving().map(|endpoint| &endpoint.name.version).max();
    let chosen: Vec<Arc<str>> = serving()
        .filter(|endpoint| Some(&endpoint.name.version) == newest)
        .map(|endpoint| endpoint.address.clone())
        .collect();
    if chosen.is_empty() {
        let reason = match (named().count(), known.len()) {
            (0, 0) => String::new(),
            (0, others) => format!(" (of {others} others by that short name, none matches)"),
            _ => format!(" that takes calls ({})", states(named())),
        };
        return Err(Failure::NoEndpoint { service: name.to_string(), reason });
    }
    Ok(chosen)
}

/// How many endpoints are in which state: `1 draining, 2 compiling`.
fn states<'k>(known: impl Iterator<Item = &'k Known>) -> String {
    let mut counts = BTreeMap::<State, usize>::new();
    for endpoint in known {
        *counts.entry(endpoint.state).or_default() += 1;
    }
    let texts: Vec<String> = counts.iter().map(|(state, n)| format!("{n} {state}")).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_registry_api::{Condition, EndpointSpec};

    fn endpoint(version: &str, address: &str, state: State) -> Known {
        Known::new(Endpoint {
            spec: EndpointSpec {
                service: "arith".into(),
                package: Some("demo:arith".into()),
                version: Some(version.into()),
                fingerprint: String::new(),
                condition: Condition::Serving,
                reason: None,
                tags: Vec::new(),
                metadata: Default::default(),
            },
            host: String::new(),
            address: address.into(),
            state,
            unverified: false,
        })
    }

    #[test]
    fn the_newest_version_that_takes_calls_is_chosen() {
        let endpoints = [
            endpoint("0.1.0", "a", State::Serving),
            endpoint("0.2.0", "b", State::Serving),
            endpoint("0.10.0", "c", State::Draining),
        ];
        let choose = |name| choose(&ServiceName::parse(name).unwrap(), &endpoints);
        assert_eq!(choose("Arith").unwrap(), [Arc::from("b")]);
        assert_eq!(choose("arith@0.1.0").unwrap(), [Arc::from("a")]);
        assert_eq!(
            choose("arith@0.10.0").unwrap_err().to_string(),
            "no endpoint of the service 'arith@0.10.0' is registered that takes calls (1 draining)"
        );
        assert_eq!(
            choose("acme:x/arith").unwrap_err().to_string(),
            "no endpoint of the service 'acme:x/arith' is registered (of 3 others by that short name, none matches)"
        );
    }
}
