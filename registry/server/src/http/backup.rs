//! Backups of all records, and how they come back.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body as Sent;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use wharf_registry_api::{Code, Problem, Restore, Restored};

use super::Refused;
use super::authorize::Caller;
use super::parameters::Body;
use crate::backup;
use crate::directory::Directory;

/// How many bytes are sent at a time.
const PIECE: usize = 64 * 1024;

/// All records of one moment.
pub(super) async fn backup(
    State(directory): State<Arc<Directory>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Refused> {
    caller.may_administer()?;
    directory.catch_up("backup").await?;
    if let Err(why) = directory.readiness() {
        let detail = format!("a backup would not have everything: {why}");
        return Err(Problem::new(Code::StoreUnavailable, detail).into());
    }
    let mut lines = backup::lines(directory.view.records());
    let pieces = std::iter::from_fn(move || {
        let mut piece = Vec::new();
        while piece.len() < PIECE
            && let Some(line) = lines.next()
        {
            piece.extend_from_slice(&line);
        }
        (!piece.is_empty()).then(|| Ok::<_, Infallible>(Bytes::from(piece)))
    });
    let body = Sent::from_stream(futures_util::stream::iter(pieces));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Writes records of a backup, unless there are such records already.
pub(super) async fn restore(
    State(directory): State<Arc<Directory>>,
    Extension(caller): Extension<Caller>,
    Body(Restore { records }): Body<Restore>,
) -> Result<Json<Restored>, Refused> {
    caller.may_administer()?;
    let restored = directory.restore_all(&records).await?;
    if restored > 0 {
        tracing::info!(restored, "records of a backup were restored");
    }
    Ok(Json(Restored { restored, present: records.len() - restored }))
}
