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

/// Attempts of one call that were paid for out of the budget, beside the first.
const MAX_PAID: u32 = 3;

/// Attempts of one call whose connection had just gone away, at endpoints that may have another.
const MAX_RECONNECTS: u32 = 3;

/// The pause before endpoints are asked a second time, and longer each further time; half of it is
/// chance.
const PAUSE: Duration = Duration::from_millis(50);

/// What is needed to make attempts.
pub(crate) struct Caller {
    pub(crate) target: Target,
    pub(crate) budget: RetryBudget,
    /// Held by the one who decides that an endpoint is left out.
    pub(crate) ejecting: Mutex<()>,
    pub(crate) observers: Vec<Arc<dyn Observer>>,
}

/// What is asked, and how.
pub(crate) struct Asked<'a> {
    pub(crate) named: &'a Named,
    pub(crate) question: Question,
    pub(crate) deadline: Deadline,
    /// It may be executed more than once.
    pub(crate) idempotent: bool,
    /// When a second endpoint is asked beside the first.
    pub(crate) hedge_after: Option<Duration>,
}

/// What an endpoint answered.
pub(crate) struct Answer {
    pub(crate) bytes: Bytes,
    node: Arc<Node>,
    attempts: u32,
}

impl Answer {
    /// The error of an answer that came, and is of no use.
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

/// How far a call is.
#[derive(Default)]
struct Course {
    /// Those that were asked in this round.
    asked: Vec<Arc<Node>>,
    attempts: u32,
    paid: u32,
    /// The next attempt comes out of the budget.
    must_pay: bool,
    reconnects: u32,
    /// Whether a further round may do any good.
    again: bool,
    may_have_executed: bool,
    last: Option<(Arc<Node>, Failure)>,
}

impl Caller {
    /// Asks until there is an answer, or trying further would do harm or no good.
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

    /// The same, for those who want to know of it.
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

    /// The first attempt, where all that it takes is at hand; it nearly always is the only one. The
    /// rest is set apart: it would make each call's future several times as large.
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

    /// Makes further attempts; `failed` is among whom the last one was made.
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
                Err(failure) => return Err(course.error(asked, Some(failure))),
            };
            let Some(node) = selection.pick(now, &course.asked).cloned() else {
                // All were asked: once more, if that may help and there is time.
                let pause = course.pause();
                let affordable =
                    course.again && now + pause < asked.deadline.at && self.budget.withdraw(now);
                if !affordable {
                    return Err(course.error(asked, None));
                }
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

    /// Asks a node, and another one beside it when it takes its time and the call allows that.
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
        // The first answer counts; the other attempt is dropped, and so cancelled. A failure counts
        // only if the other one fails too.
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

    /// Asks one node once.
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

    /// Notes what an attempt came to.
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
            // A deadline that passed is never taken back, not even by an answer that lies ready.
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
    /// Whether the call goes on after its last failure.
    fn goes_on(&mut self, asked: &Asked<'_>, selection: &Selection, now: Instant) -> bool {
        let Some((node, failure)) = &self.last else { return false };
        if now >= asked.deadline.at {
            return false;
        }
        match Verdict::of(failure, asked.idempotent) {
            Verdict::Final => false,
            Verdict::Free => {
                // The connection went, and the endpoint need not have: it may be asked again.
                if matches!(failure, Failure::ConnectionLost { .. })
                    && self.reconnects < MAX_RECONNECTS
                {
                    self.reconnects += 1;
                    self.asked.retain(|asked| !asked.is_same(node));
                }
                true
            }
            Verdict::Elsewhere => {
                selection.refuse(node, now);
                true
            }
            Verdict::Paid => {
                (self.again, self.must_pay) = (true, true);
                self.paid += 1;
                self.paid <= MAX_PAID
            }
        }
    }

    /// Until when a connection is waited for: not for long where somebody else can be asked.
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

    /// How long to wait before all are asked again.
    fn pause(&self) -> Duration {
        let longer = PAUSE.saturating_mul(1 << self.paid.min(10));
        let pause = longer.mul_f64(0.5 + 0.5 * fastrand::f64());
        // A host that says when is taken at its word.
        let asked_for = self.last.as_ref().and_then(|(_, failure)| failure.retry_after());
        pause.max(asked_for.unwrap_or_default())
    }

    /// The call's error: the last failure of an attempt, or else what kept it from being made.
    fn error(self, asked: &Asked<'_>, instead: Option<Failure>) -> RpcError {
        let method = asked.named.canonical().to_string();
        let no_node = || Failure::NoEndpoint {
            service: asked.named.wanted().service.to_string(),
            reason: String::new(),
        };
        let (endpoint, failure) = match self.last {
            Some((node, failure)) => (Some(node.endpoint.address().to_string()), failure),
            None => (None, instead.unwrap_or_else(no_node)),
        };
        let may_have_executed = self.may_have_executed || failure.may_have_executed();
        RpcError { method, endpoint, attempts: self.attempts, may_have_executed, failure }
    }
}
