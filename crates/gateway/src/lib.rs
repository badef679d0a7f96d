//! Role: data plane. Takes traffic, runs plugins, balances over upstreams.

mod router;
