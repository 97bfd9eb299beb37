//! Stub.
use super::answer;
use crate::rpc::Shared;
use axum::response::Response;
use std::sync::Arc;
pub(super) const FILE: &str = "/openapi.json";
pub(super) async fn answer(_: &Arc<Shared>, _: String) -> Response {
    answer::not_allowed("GET")
}
