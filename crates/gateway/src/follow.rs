//! temporary
use std::sync::Arc;
use crate::conf::{Conf, Material};
use crate::proxy::Shared;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct FollowError;
pub(crate) struct Follower;
impl Follower {
    pub(crate) async fn start(_: &Conf, _: &Material, _: &Arc<Shared>) -> Result<Follower, FollowError> { Ok(Follower) }
    pub(crate) async fn stop(self) {}
}
