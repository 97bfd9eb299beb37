//! Counts and times every request.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use wharf_net::http::Peer;

use super::Source;
use super::refusals::{Asked, Why};

pub(super) async fn measure(
    State(source): State<Source>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    // A request that was told to wait says nothing about how fast answers are.
    let waits = request.uri().query().is_some_and(|query| query.contains("index="));
    let asked = Asked {
        peer: request.extensions().get::<Peer>().map(|Peer(peer)| *peer),
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
    };
    let response = next.run(request).await;
    if let Some(why) = response.extensions().get::<Why>() {
        source.refusals.log(&asked, response.status(), why);
    }
    let path = path.as_ref().map_or("other", MatchedPath::as_str);
    let took = (!waits && path != "/v1/watch").then(|| began.elapsed());
    source.metrics.answered(path, response.status().as_u16(), took);
    response
}
