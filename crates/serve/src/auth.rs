//! Who is asking: a bearer key becomes a workspace, or a refusal. Keys themselves are judged elsewhere.

use crate::problem::{Code, Problem};
use crate::state::{Access, ApiState};
use axum::extract::FromRequestParts;
use axum::http::{header, request::Parts};
use std::sync::Arc;
use vigie_event::Workspace;

/// The workspace that the request's key may read.
pub(crate) struct Reader(pub(crate) Workspace);

impl<S: Send + Sync + 'static> FromRequestParts<Arc<ApiState<S>>> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ApiState<S>>) -> Result<Self, Problem> {
        let refused = || Problem::new(Code::Unauthenticated, "send a read key as Authorization: Bearer <key>");
        let value = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(refused)?;
        let (scheme, key) = value.split_once(' ').ok_or_else(refused)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(refused());
        }
        match (state.authorize)(key.trim()) {
            Access::Read(workspace) => Ok(Self(workspace)),
            Access::WrongKind => Err(Problem::new(
                Code::KeyScope,
                "this key is not for reading; use a read key",
            )),
            Access::Unknown => Err(refused()),
        }
    }
}
