//! Taking nodes in: tokens, and what a machine with one is told.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sallyport_runtime::certs::{CertsError, Request};
use sallyport_runtime::tls::{PemError, certificates, leaf_digest};
use sallyport_store::{Actor, ClusterRefusal, NewMember, NodeRole, StoreError};
use sallyport_wire::node_control::{Admitted, JoinRequest, JoinToken};
use uuid::Uuid;

use super::authority::{Authority, SealError};
use super::identity::{Identity, RawRoster};
use super::settings::{Settings, check_name};
use super::state::State;

/// Why a token or a node is refused.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// One node's database cannot be shared.
    #[error(
        "this node keeps its state in a file of its own, which no other node can share; set \
         [database] url to a PostgreSQL database in {0} and found the cluster on that"
    )]
    NotShared(String),
    /// No database at the moment.
    #[error("this node has no database at the moment, or is a witness; ask another node")]
    NoDatabase,
    /// A length of time that is not allowed.
    #[error("a join token is valid for 60 to 86400 seconds, not {0}")]
    Seconds(u32),
    /// The name of the machine.
    #[error("{0}")]
    Name(String),
    /// Its address.
    #[error("{0:?} is no address that the other nodes can dial, such as 192.0.2.12:7777")]
    Address(String),
    /// The token.
    #[error("{0}")]
    Token(String),
    /// Name or address are those of another node.
    #[error("another node of the cluster has the {field} {value:?}; {way_out}")]
    Taken {
        /// `name` or `address`.
        field: String,
        /// The value.
        value: String,
        /// What helps.
        way_out: &'static str,
    },
    /// The request for a certificate.
    #[error(transparent)]
    Request(#[from] CertsError),
    /// The cluster's keys.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The database.
    #[error(transparent)]
    Store(StoreError),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Randomness,
    /// The authority's own certificate.
    #[error("the cluster's authority {0}")]
    Authority(PemError),
}

impl From<StoreError> for AdmissionError {
    fn from(error: StoreError) -> AdmissionError {
        match error {
            StoreError::Cluster(error @ ClusterRefusal::BadToken(_)) => AdmissionError::Token(
                format!("{error}; `sallyport node token` on a node makes a new one"),
            ),
            StoreError::UniqueTaken { field, value } => AdmissionError::Taken {
                way_out: match field.as_str() {
                    "name" => "choose another ([node] name), or remove that node first",
                    _ => "give this machine its own, or remove that node first",
                },
                field,
                value,
            },
            other => AdmissionError::Store(other),
        }
    }
}

/// Makes a token by which one machine may join with this role within `secs`.
///
/// # Errors
/// See [`AdmissionError`].
pub async fn new_token(
    state: &State,
    actor: &Actor,
    role: NodeRole,
    secs: u32,
) -> Result<JoinToken, AdmissionError> {
    if !(60..=86_400).contains(&secs) {
        return Err(AdmissionError::Seconds(secs));
    }
    if !state.clustered {
        let file = state.settings.file.display().to_string();
        return Err(AdmissionError::NotShared(file));
    }
    let store = state.store().ok_or(AdmissionError::NoDatabase)?;
    let authority = certificates(&state.identity.authority).map_err(AdmissionError::Authority)?;
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).map_err(|_| AdmissionError::Randomness)?;
    let token = JoinToken {
        authority: leaf_digest(&authority[0]).0,
        secret,
        address: state.address.to_string(),
    };
    store
        .create_join_token(actor, token.digest(), role, secs)
        .await?;
    Ok(token)
}

/// Takes in the machine that asks, if its token is good.
///
/// # Errors
/// See [`AdmissionError`].
#[expect(dead_code, reason = "for the listener between nodes")]
pub(crate) async fn admit(
    state: &State,
    asked: JoinRequest,
    token: [u8; 32],
) -> Result<Admitted, AdmissionError> {
    check_name(&asked.name).map_err(AdmissionError::Name)?;
    let address = asked.address.parse::<std::net::SocketAddr>().ok();
    let address = address.filter(|it| !it.ip().is_unspecified() && it.port() != 0);
    let address = address.ok_or(AdmissionError::Address(asked.address))?;
    let request = Request::parse(&asked.request)?;
    let store = state.store().ok_or(AdmissionError::NoDatabase)?;
    let new = NewMember {
        id: Uuid::new_v4(),
        name: asked.name,
        role: NodeRole::Data,
        address: address.to_string(),
        key_digest: request.key_digest(),
    };
    let admission = store.admit_node(token, new).await?;
    let member = admission.member;
    let authority = Authority::open(&admission.cluster, &state.identity.secret)?;
    let certificate = authority.certify(request, member.id, &member.name)?;
    let roster = store.roster().await?;
    let of_data = |text: String| match member.role {
        NodeRole::Data => text,
        NodeRole::Witness => String::new(),
    };
    let database = state.settings.database.as_ref();
    Ok(Admitted {
        cluster: admission.cluster.id.to_string(),
        id: member.id.to_string(),
        role: member.role.to_string(),
        authority: admission.cluster.node_ca,
        certificate,
        secret: of_data(STANDARD.encode(&state.identity.secret)),
        database: of_data(database.map(|it| it.url.clone()).unwrap_or_default()),
        roster: serde_json::to_value(RawRoster::of(&roster)).unwrap_or_default(),
    })
}

/// What a machine makes of the answer.
///
/// # Errors
/// The answer is none that a node of this build gives.
#[expect(dead_code, reason = "for the listener between nodes")]
pub(crate) fn admitted(
    settings: &Settings,
    answer: Admitted,
    key: String,
) -> Result<(Identity, sallyport_store::Roster, String), String> {
    let id = |text: &str| text.parse::<Uuid>().map_err(|error| error.to_string());
    let raw: RawRoster = serde_json::from_value(answer.roster).map_err(|it| it.to_string())?;
    let secret = STANDARD.decode(&answer.secret);
    let identity = Identity {
        cluster: id(&answer.cluster)?,
        id: id(&answer.id)?,
        name: settings.name.clone(),
        role: answer
            .role
            .parse()
            .map_err(|error| format!("role: {error}"))?,
        authority: answer.authority,
        certificate: answer.certificate,
        key: super::settings::Secret(key),
        secret: secret.map_err(|error| error.to_string())?,
    };
    Ok((identity, raw.typed()?, answer.database))
}
