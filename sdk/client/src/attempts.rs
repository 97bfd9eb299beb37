//! One call: its attempts, one after the other or hedged, within one deadline.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{Either, select};
use tracing::{Instrument, Span};

use crate::balance::{InFlight, Node, Selection};
use crate::channel::SLOW_CONNECT;
use crate::connection::{Connection, Deadline, Question};
use crate::error::{Failure, RpcError};
use crate::named::{Named, Target};
use crate::observe::{Attempt, Ended, Observer};
use crate::retry::{RetryBudget, Verdict};

/// The most retries of one call that cost budget ([`Verdict::Paid`]).
const MAX_PAID: u32 = 3;

/// The most times that one call returns to an endpoint whose connection was lost before the call
/// was sent.
const MAX_RECONNECTS: u32 = 3;

/// The base of the backoff before all endpoints are tried again. It doubles with each retry that
/// costs budget; up to half of it is random.
const PAUSE: Duration = Duration::from_millis(50);

/// How often that doubles while no endpoint can be reached: to 0.8 seconds. The connecting itself is
/// shared by all calls.
const MAX_UNREACHED: u32 = 4;

/// Makes the attempts of a client's calls.
pub(crate) struct Caller {
    pub(crate) target: Target,
    pub(crate) budget: RetryBudget,
    /// Held while an endpoint is ejected, so that concurrent calls do not eject too many.
    pub(crate) ejecting: Mutex<()>,
    pub(crate) observers: Vec<Arc<dyn Observer>>,
}

/// One call: the request, its deadline and how it may be retried.
pub(crate) struct Asked<'a> {
    pub(crate) named: &'a Named,
    pub(crate) question: Question,
    pub(crate) deadline: Deadline,
    /// The call may run more than once.
    pub(crate) idempotent: bool,
    /// It waits for an endpoint that can be reached, also where there was none yet.
    pub(crate) waits: bool,
    /// It waits for one that was there.
    pub(crate) is_patient: bool,
    /// After how long the call is also sent to a second endpoint (hedging).
    pub(crate) hedge_after: Option<Duration>,
}

impl Asked<'_> {
    /// Whether the call waits for the end of this failure.
    fn outlasts(&self, failure: &Failure) -> bool {
        match failure {
            Failure::NoEndpoint { was_there, .. } => self.waits || self.is_patient && *was_there,
            _ => false,
        }
    }
}

/// What an endpoint answered.
pub(crate) struct Answer {
    pub(crate) bytes: Bytes,
    node: Arc<Node>,
    attempts: u32,
}

impl Answer {
    /// The error for an answer that arrived but cannot be used.
    pub(crate) fn unusable(&self, method: &str, failure: Failure) -> RpcError {
        RpcError {
            method: method.to_owned(),
            endpoint: Some(self.node.endpoint.address().to_string()),
            attempts: self.attempts,
            may_have_executed: true,
            failure,
        }
    }
}

/// The progress of a call through its attempts.
#[derive(Default)]
struct Course {
    /// The nodes that were tried in this round.
    asked: Vec<Arc<Node>>,
    attempts: u32,
    paid: u32,
    /// The next attempt is paid for out of the retry budget.
    must_pay: bool,
    reconnects: u32,
    /// Whether another round may help.
    again: bool,
    /// Rounds in which no endpoint could be reached.
    unreached: u32,
    /// Whether that is so in this round. Another one then costs no host anything.
    is_unreached: bool,
    may_have_executed: bool,
    last: Option<(Arc<Node>, Failure)>,
}

impl Caller {
    /// Makes attempts until one is answered, or until a retry would be unsafe or useless.
    pub(crate) async fn ask(&self, asked: &Asked<'_>) -> Result<Answer, RpcError> {
        let (method, service) = (asked.named.short(), asked.named.service());
        let span = tracing::debug_span!(
            "call",
            otel.kind = "client",
            rpc.system = "wharf",
            rpc.service = service,
            rpc.method = method,
            server.address = tracing::field::Empty,
            attempts = tracing::field::Empty,
            status = tracing::field::Empty,
        );
        if span.is_disabled() && self.observers.is_empty() {
            return self.course(asked).await;
        }
        Box::pin(self.observed(asked, span)).await
    }

    /// Like `course`, but reports the call to the tracing span and to the observers.
    async fn observed(&self, asked: &Asked<'_>, span: Span) -> Result<Answer, RpcError> {
        let (method, service) = (asked.named.short(), asked.named.service());
        let result = self.course(asked).instrument(span.clone()).await;
        let (endpoint, attempts) = match &result {
            Ok(answer) => (Some(&**answer.node.endpoint.address()), answer.attempts),
            Err(error) => (error.endpoint.as_deref(), error.attempts),
        };
        let error = result.as_ref().err();
        if !span.is_disabled() {
            span.record("server.address", endpoint);
            span.record("attempts", attempts);
            span.record("status", error.map_or("OK", |error| error.status().name()));
        }
        let elapsed = asked.deadline.begun.elapsed();
        let ended = Ended { method, service, endpoint, attempts, elapsed, error };
        self.observers.iter().for_each(|observer| observer.call_ended(&ended));
        result
    }

    /// Makes the first attempt, if everything that it needs is ready. Nearly always it is the only
    /// attempt. Further attempts are boxed separately: otherwise every call's future would be
    /// several times larger.
    async fn course(&self, asked: &Asked<'_>) -> Result<Answer, RpcError> {
        let begun = asked.deadline.begun;
        self.budget.deposit(begun);
        let mut course = Course::default();
        let Some((selection, node, connection)) = self.at_hand(asked) else {
            return Box::pin(self.go_on(asked, course, None)).await;
        };
        let in_flight = node.begin(begun);
        let result = connection.ask(asked.question.clone(), asked.deadline, begun).await;
        match self.ended(asked, &selection, in_flight, 1, result) {
            Ok(bytes) => Ok(Answer { bytes, node, attempts: 1 }),
            Err(failure) => {
                course.attempts = 1;
                course.asked.push(node.clone());
                course.fail(node, failure);
                Box::pin(self.go_on(asked, course, Some(selection))).await
            }
        }
    }

    fn at_hand(&self, asked: &Asked<'_>) -> Option<(Arc<Selection>, Arc<Node>, Arc<Connection>)> {
        if asked.hedge_after.is_some() {
            return None;
        }
        let begun = asked.deadline.begun;
        let selection = asked.named.selection_at_hand(&self.target, begun)?;
        let node = selection.pick(begun, &[])?.clone();
        let connection = node.endpoint.connection_at_hand()?;
        Some((selection, node, connection))
    }

    /// Makes further attempts. If an attempt has failed already, `failed` is the selection that its
    /// node was picked from.
    async fn go_on(
        &self,
        asked: &Asked<'_>,
        mut course: Course,
        failed: Option<Arc<Selection>>,
    ) -> Result<Answer, RpcError> {
        let mut now = asked.deadline.begun;
        if let Some(selection) = failed {
            now = Instant::now();
            if !course.goes_on(asked, &selection, now) {
                return Err(course.error(asked, None));
            }
        }
        loop {
            let found = asked.named.selection(&self.target, now, asked.deadline.at).await;
            let selection = match found {
                Ok(selection) => selection,
                Err(failure) => {
                    let pause = course.pause();
                    if !asked.outlasts(&failure) || now + pause >= asked.deadline.at {
                        return Err(course.error(asked, Some(failure)));
                    }
                    course.unreached += 1;
                    tokio::time::sleep(pause).await;
                    now = Instant::now();
                    continue;
                }
            };
            let Some(node) = selection.pick(now, &course.asked).cloned() else {
                // All nodes were tried. Start another round if that may help, and the deadline and
                // the budget allow it.
                let pause = course.pause();
                let is_free = course.is_unreached && asked.is_patient;
                let affordable = now + pause < asked.deadline.at
                    && (is_free || course.again && self.budget.withdraw(now));
                if !affordable {
                    return Err(course.error(asked, None));
                }
                course.unreached += u32::from(is_free);
                course.asked.clear();
                course.again = false;
                tokio::time::sleep(pause).await;
                now = Instant::now();
                continue;
            };
            if std::mem::take(&mut course.must_pay) && !self.budget.withdraw(now) {
                return Err(course.error(asked, None));
            }
            if let Some(answer) = self.attempt_or_hedge(asked, &selection, node, &mut course).await
            {
                return Ok(answer);
            }
            now = Instant::now();
            if !course.goes_on(asked, &selection, now) {
                return Err(course.error(asked, None));
            }
        }
    }

    /// Makes one attempt. If it is slow and the call may be hedged, makes a second one in parallel.
    async fn attempt_or_hedge(
        &self,
        asked: &Asked<'_>,
        selection: &Selection,
        node: Arc<Node>,
        course: &mut Course,
    ) -> Option<Answer> {
        course.attempts += 1;
        course.asked.push(node.clone());
        let patience = course.patience(asked, selection, &node);
        let first = self.attempt(asked, selection, node.clone(), course.attempts, patience);
        let after = asked.hedge_after.filter(|_| asked.idempotent && selection.len() > 1);
        let Some(after) = after else {
            let result = first.await;
            return course.take(node, result);
        };
        let mut first = pin!(first);
        if let Ok(result) = tokio::time::timeout(after, &mut first).await {
            return course.take(node, result);
        }
        let now = Instant::now();
        let other = selection.pick(now, &course.asked).cloned();
        let Some(other) = other.filter(|_| self.budget.withdraw(now)) else {
            let result = first.await;
            return course.take(node, result);
        };
        course.attempts += 1;
        course.asked.push(other.clone());
        let number = course.attempts;
        let second = pin!(self.attempt(asked, selection, other.clone(), number, asked.deadline.at));
        // The first result counts. The other attempt is dropped, which cancels it. A failure counts
        // only if the other attempt fails too.
        match select(first, second).await {
            Either::Left((Ok(bytes), _)) => course.take(node, Ok(bytes)),
            Either::Right((Ok(bytes), _)) => course.take(other, Ok(bytes)),
            Either::Left((Err(failure), second)) => {
                course.fail(node, failure);
                let result = second.await;
                course.take(other, result)
            }
            Either::Right((Err(failure), first)) => {
                course.fail(other, failure);
                let result = first.await;
                course.take(node, result)
            }
        }
    }

    /// Makes one attempt at one node.
    async fn attempt(
        &self,
        asked: &Asked<'_>,
        selection: &Selection,
        node: Arc<Node>,
        number: u32,
        connected_by: Instant,
    ) -> Result<Bytes, Failure> {
        let in_flight = node.begin(Instant::now());
        let result = match node.endpoint.connection(connected_by).await {
            Ok(connection) => {
                connection.ask(asked.question.clone(), asked.deadline, Instant::now()).await
            }
            Err(failure) => Err(failure),
        };
        self.ended(asked, selection, in_flight, number, result)
    }

    /// Records the outcome of an attempt.
    fn ended(
        &self,
        asked: &Asked<'_>,
        selection: &Selection,
        in_flight: InFlight<'_>,
        number: u32,
        result: Result<Bytes, Failure>,
    ) -> Result<Bytes, Failure> {
        let now = Instant::now();
        let (node, begun) = (in_flight.node(), in_flight.begun());
        let result = match result {
            // After the deadline the call has failed, even if an answer is ready.
            Ok(_) if now >= asked.deadline.at => {
                Err(asked.deadline.passed(asked.question.is_harmless()))
            }
            Err(Failure::Connect(_)) if now >= asked.deadline.at => {
                Err(asked.deadline.passed(true))
            }
            result => result,
        };
        match &result {
            Ok(_) => in_flight.answered(now),
            Err(failure) => {
                tracing::debug!(endpoint = %node.endpoint.address(), number, %failure, "an attempt failed");
                if in_flight.failed(now, failure) {
                    selection.eject(node, now, &self.ejecting);
                }
            }
        }
        if !self.observers.is_empty() {
            let attempt = Attempt {
                method: asked.named.short(),
                service: asked.named.service(),
                endpoint: node.endpoint.address(),
                number,
                elapsed: now.saturating_duration_since(begun),
                failure: result.as_ref().err(),
            };
            self.observers.iter().for_each(|observer| observer.attempt_ended(&attempt));
        }
        result
    }
}

impl Course {
    /// Whether the call is retried after its last failure.
    fn goes_on(&mut self, asked: &Asked<'_>, selection: &Selection, now: Instant) -> bool {
        let Some((node, failure)) = &self.last else { return false };
        if now >= asked.deadline.at {
            return false;
        }
        match Verdict::of(failure, asked.idempotent) {
            Verdict::Final => false,
            Verdict::Free => {
                self.is_unreached = true;
                // The connection is lost, but the endpoint may still be up: it may be tried again.
                if matches!(failure, Failure::ConnectionLost { .. })
                    && self.reconnects < MAX_RECONNECTS
                {
                    self.reconnects += 1;
                    self.asked.retain(|asked| !asked.is_same(node));
                }
                true
            }
            Verdict::Elsewhere => {
                self.is_unreached = false;
                selection.refuse(node, now);
                true
            }
            // The host says when it will be there, as after its start.
            Verdict::Paid if asked.is_patient && failure.will_be_there() => {
                self.is_unreached = true;
                true
            }
            Verdict::Paid => {
                (self.again, self.must_pay, self.is_unreached) = (true, true, false);
                self.paid += 1;
                self.paid <= MAX_PAID
            }
        }
    }

    /// Until when to wait for a connection: only briefly if another node is ready.
    fn patience(&self, asked: &Asked<'_>, selection: &Selection, node: &Node) -> Instant {
        let others: &[Arc<Node>] = if self.again { &[] } else { &self.asked };
        if node.endpoint.is_connected() || !selection.has_other_ready(node, others) {
            return asked.deadline.at;
        }
        asked.deadline.at.min(Instant::now() + SLOW_CONNECT)
    }

    fn take(&mut self, node: Arc<Node>, result: Result<Bytes, Failure>) -> Option<Answer> {
        match result {
            Ok(bytes) => Some(Answer { bytes, node, attempts: self.attempts }),
            Err(failure) => {
                self.fail(node, failure);
                None
            }
        }
    }

    fn fail(&mut self, node: Arc<Node>, failure: Failure) {
        self.may_have_executed |= failure.may_have_executed();
        self.last = Some((node, failure));
    }

    /// The backoff before all nodes are tried again.
    fn pause(&self) -> Duration {
        let doublings = self.paid.min(10).max(self.unreached.min(MAX_UNREACHED));
        let longer = PAUSE.saturating_mul(1 << doublings);
        let pause = longer.mul_f64(0.5 + 0.5 * fastrand::f64());
        // If the host says when to retry, respect it.
        let asked_for = self.last.as_ref().and_then(|(_, failure)| failure.retry_after());
        pause.max(asked_for.unwrap_or_default())
    }

    /// The call's error: the last attempt's failure or, if there was no attempt, the reason for
    /// that.
    fn error(self, asked: &Asked<'_>, instead: Option<Failure>) -> RpcError {
        let method = asked.named.canonical().to_string();
        let no_node = || Failure::NoEndpoint {
            service: asked.named.wanted().service.to_string(),
            reason: String::new(),
            was_there: false,
        };
        let (endpoint, failure) = match self.last {
            Some((node, failure)) => (Some(node.endpoint.address().to_string()), failure),
            None => (None, instead.unwrap_or_else(no_node)),
        };
        let may_have_executed = self.may_have_executed || failure.may_have_executed();
        RpcError { method, endpoint, attempts: self.attempts, may_have_executed, failure }
    }
}
