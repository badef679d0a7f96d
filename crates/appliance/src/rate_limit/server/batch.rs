//! Requests that came together, each on its way to an answer.

use std::sync::Arc;

use sallyport_wire::rate_limit::{Body, ErrorKind, Level, Method, Request, Response};

use super::outbox::Outbox;
use super::waits::Waits;
use super::{OwnedId, Shared};
use crate::rate_limit::bucket::Now;
use crate::rate_limit::cluster::{Cluster, Gathered, Routed};
use crate::rate_limit::limits::{Answer, refused};
use crate::rate_limit::redis::{Redis, Sent};
use crate::rate_limit::types::{Types, Unreachable};

/// What requests of one moment share.
pub(super) struct Batch<'a> {
    pub(super) types: &'a Types,
    pub(super) now: Now,
    pub(super) shared: &'a Shared,
    pub(super) outbox: &'a Arc<Outbox>,
}

impl Batch<'_> {
    /// Answers a client: here, or through the node that the key belongs to.
    pub(super) fn route(&self, request: &Request<'_>, waits: &mut Waits<'_>, out: &mut Vec<u8>) {
        if let Some(redis) = &self.shared.redis {
            return self.through(redis, *request, waits, out);
        }
        let Some(cluster) = &self.shared.cluster else {
            return self.here(*request, waits, out);
        };
        // No other node knows more of these.
        let alone = match request.method {
            Method::Ping => true,
            Method::Count => false,
            _ => !self.types.has(request.bucket),
        };
        if alone {
            return self.here(*request, waits, out);
        }
        if request.method == Method::Status {
            return self.gather(cluster, request);
        }
        match cluster.route(request, self.outbox) {
            Routed::Sent => {}
            Routed::Here => self.here(*request, waits, out),
            Routed::Leased(taken) => self.say(request, Body::Take(taken), out),
            Routed::Silent => self.by_policy(*request, waits, out),
        }
    }

    /// Answers from Redis.
    fn through(
        &self,
        redis: &Redis,
        mut request: Request<'_>,
        waits: &mut Waits<'_>,
        out: &mut Vec<u8>,
    ) {
        if request.method == Method::Wait && !waits.has_room() {
            request.method = Method::Take;
        }
        match redis.ask(self.types, &request, self.now, self.outbox) {
            Sent::Asked => {}
            Sent::Here => self.here(request, waits, out),
            Sent::Silent => self.by_policy(request, waits, out),
        }
    }

    /// Answers from this node's buckets.
    pub(super) fn here(&self, mut request: Request<'_>, waits: &mut Waits<'_>, out: &mut Vec<u8>) {
        if request.method == Method::Wait && !waits.has_room() {
            request.method = Method::Take;
        }
        match self.shared.limits.answer(self.types, &request, self.now) {
            Answer::Later { ms } => waits.add(&request, ms),
            Answer::Now(..) if request.skip_response => {}
            Answer::Now(body, extra) => {
                let id = request.id;
                Response { id, body, extra }.encode(out);
            }
        }
    }

    /// Answers as the bucket type says for when the key's node is silent.
    pub(super) fn by_policy(&self, request: Request<'_>, waits: &mut Waits<'_>, out: &mut Vec<u8>) {
        if request.method == Method::Count {
            // the gateway has a policy of its own
            return self.say(&request, Body::Error(ErrorKind::Unreachable), out);
        }
        let takes = matches!(request.method, Method::Take | Method::Wait);
        match self.types.when_unreachable(request.bucket) {
            Some(Unreachable::Refuse) if takes => {
                let level = Level {
                    remaining: 0,
                    // nobody knows; soon enough to try again
                    reset: self.now.unix_ms / 1000 + 1,
                    limit: self.types.size(request.bucket, request.key, self.now),
                };
                self.say(&request, refused(level), out);
            }
            _ => self.here(request, waits, out),
        }
    }

    fn gather(&self, cluster: &Cluster, request: &Request<'_>) {
        if request.skip_response {
            return;
        }
        self.outbox.owe();
        let id = OwnedId::from(request.id);
        let gathered = Arc::new(Gathered::new(id, self.outbox.clone()));
        cluster.gather(request, &gathered);
        let own = match self.shared.limits.answer(self.types, request, self.now) {
            Answer::Now(Body::Status(items), _) => items,
            _ => Vec::new(),
        };
        gathered.part(own);
    }

    fn say(&self, request: &Request<'_>, body: Body, out: &mut Vec<u8>) {
        if !request.skip_response {
            Response::new(request.id, body).encode(out);
        }
    }
}
