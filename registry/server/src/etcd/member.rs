//! One member of a cluster: a connection that reconnects by itself, and its calls.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt};
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::Streaming;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::messages::{
    AuthenticateRequest, AuthenticateResponse, LeaseGrantRequest, LeaseGrantResponse,
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    PutRequest, PutResponse, RangeRequest, RangeResponse, StatusRequest, StatusResponse,
    TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest, WatchResponse,
};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(1);

/// How often a connection is pinged. Members close a connection that pings more often than this.
const PING: Duration = Duration::from_secs(6);

/// How long the answer to a ping may take.
const PONG: Duration = Duration::from_secs(3);

/// The largest answer that is read, in bytes: a page of the largest records.
const MAX_ANSWER: usize = 512 * 1024 * 1024;

/// The header that makes a member without a leader refuse the call, instead of answering from old
/// data.
const REQUIRE_LEADER: &str = "hasleader";

/// How a member and the registry authenticate each other.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Whether the connection uses TLS.
    pub encrypted: bool,
    /// A file with the certificate authorities for the member's certificate, in PEM. Without it, those
    /// of the system.
    pub authorities: Option<PathBuf>,
    /// A file with the registry's certificate and its private key, in PEM.
    pub certificate: Option<PathBuf>,
    /// A user's name and password.
    pub user: Option<(String, String)>,
}

/// What is in the files of credentials.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Certificates {
    authorities: Option<Vec<u8>>,
    certificate: Option<Vec<u8>>,
}

impl Credentials {
    /// Reads the files.
    pub(crate) fn read(&self) -> Result<Certificates, Error> {
        let read = |path: &Option<PathBuf>| {
            let path = path.as_ref();
            let read = |path: &PathBuf| {
                std::fs::read(path)
                    .map_err(|source| Error::Unreadable { path: path.clone(), source })
            };
            path.map(read).transpose()
        };
        Ok(Certificates {
            authorities: read(&self.authorities)?,
            certificate: read(&self.certificate)?,
        })
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Everything else may be secret.
        f.debug_struct("Credentials").field("encrypted", &self.encrypted).finish_non_exhaustive()
    }
}

/// One member of a cluster; clones share its connection.
#[derive(Clone, Debug)]
pub struct Member {
    channel: Channel,
    login: Option<Arc<Login>>,
}

/// A user, and the token that etcd gave at the login.
struct Login {
    name: String,
    password: String,
    token: Mutex<Option<MetadataValue<Ascii>>>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address, the authorities or the certificate cannot be used.
    #[error("a connection to etcd cannot be set up")]
    Setup(#[source] tonic::transport::Error),
    /// A file of the credentials cannot be read.
    #[error("{} cannot be read: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It was refused, or nobody answered.
    #[error("{} ({:?})", .0.message(), .0.code())]
    Refused(#[source] Box<Status>),
    /// etcd ended a stream without an answer.
    #[error("etcd ended the stream without an answer")]
    Ended,
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Error::Refused(Box::new(status))
    }
}

impl Member {
    /// A member at `host:port`. It connects at the first call, and reconnects after the connection
    /// is lost.
    ///
    /// # Errors
    /// When the address, the authorities or the certificate cannot be used.
    pub fn new(address: &str, credentials: &Credentials) -> Result<Self, Error> {
        let login = credentials
            .user
            .clone()
            .map(|(name, password)| Arc::new(Login { name, password, token: Mutex::default() }));
        let channel = channel(address, credentials.encrypted, &credentials.read()?)?;
        Ok(Member { channel, login })
    }

    /// The same member, which is connected to with other certificates from now on.
    pub(crate) fn with_certificates(
        &self,
        address: &str,
        certificates: &Certificates,
    ) -> Result<Self, Error> {
        let channel = channel(address, true, certificates)?;
        Ok(Member { channel, login: self.login.clone() })
    }

    /// Reads keys.
    ///
    /// # Errors
    /// When the member does not answer, or refuses. All calls are cancel-safe, but a change may
    /// still be made after its caller gave up.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        self.unary("/etcdserverpb.KV/Range", request).await
    }

    /// Writes a key.
    ///
    /// # Errors
    /// As for [`Member::range`].
    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, Error> {
        self.unary("/etcdserverpb.KV/Put", request).await
    }

    /// Runs a transaction.
    ///
    /// # Errors
    /// As for [`Member::range`].
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Error> {
        self.unary("/etcdserverpb.KV/Txn", request).await
    }

    /// Takes a lease of this many seconds. Returns its number.
    ///
    /// # Errors
    /// As for [`Member::range`].
    pub async fn grant(&self, ttl: i64) -> Result<i64, Error> {
        let request = LeaseGrantRequest { ttl };
        let granted: LeaseGrantResponse =
            self.unary("/etcdserverpb.Lease/LeaseGrant", request).await?;
        Ok(granted.id)
    }

    /// Ends a lease, and removes its keys.
    ///
    /// # Errors
    /// As for [`Member::range`].
    pub async fn revoke(&self, lease: i64) -> Result<(), Error> {
        let request = LeaseRevokeRequest { id: lease };
        let LeaseRevokeResponse {} = self.unary("/etcdserverpb.Lease/LeaseRevoke", request).await?;
        Ok(())
    }

    /// Renews a lease. Returns whether it still existed.
    ///
    /// # Errors
    /// As for [`Member::range`].
    pub async fn renew(&self, lease: i64) -> Result<bool, Error> {
        let once = move || stream::once(std::future::ready(LeaseKeepAliveRequest { id: lease }));
        let mut answers = self.renewals(once).await?;
        let answer = answers.message().await?.ok_or(Error::Ended)?;
        Ok(answer.ttl > 0)
    }

    /// Renews leases, one after the other, on one stream. `requests` makes the stream of requests.
    /// It is called again if a new login is needed.
    ///
    /// # Errors
    /// As for [`Member::range`].
    pub async fn renewals<S>(
        &self,
        requests: impl Fn() -> S,
    ) -> Result<Streaming<LeaseKeepAliveResponse>, Error>
    where
        S: Stream<Item = LeaseKeepAliveRequest> + Send + 'static,
    {
        self.streaming("/etcdserverpb.Lease/LeaseKeepAlive", requests).await
    }

    /// Watches keys.
    ///
    /// # Errors
    /// As for [`Member::range`].
    pub async fn watch(
        &self,
        create: WatchCreateRequest,
    ) -> Result<Streaming<WatchResponse>, Error> {
        let requests = move || {
            let request = WatchRequest { create: Some(create.clone()) };
            // The watch lives as long as the stream of its requests, so that stream never ends.
            stream::once(std::future::ready(request)).chain(stream::pending())
        };
        self.streaming("/etcdserverpb.Watch/Watch", requests).await
    }

    /// What the member says about itself.
    ///
    /// # Errors
    /// As for [`Member::range`].
    pub async fn status(&self) -> Result<StatusResponse, Error> {
        self.unary("/etcdserverpb.Maintenance/Status", StatusRequest {}).await
    }

    /// Logs the user in, if there is one.
    ///
    /// # Errors
    /// As for [`Member::range`].
    pub async fn log_in(&self) -> Result<(), Error> {
        let Some(login) = &self.login else { return Ok(()) };
        let request =
            AuthenticateRequest { name: login.name.clone(), password: login.password.clone() };
        let path = PathAndQuery::from_static("/etcdserverpb.Auth/Authenticate");
        let mut grpc = self.grpc().await?;
        let answer = grpc.unary(Request::new(request), path, ProstCodec::default()).await?;
        let AuthenticateResponse { token } = answer.into_inner();
        let token = token
            .parse()
            .map_err(|_| Status::internal("etcd's token cannot be sent as a header"))?;
        *login.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(())
    }

    async fn grpc(&self) -> Result<Grpc<Channel>, Error> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER);
        let ready = grpc.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(grpc)
    }

    async fn unary<Q, A>(&self, path: &'static str, message: Q) -> Result<A, Error>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let mut attempts = self.attempts();
        loop {
            let path = PathAndQuery::from_static(path);
            let request = self.request(message.clone());
            let answer = self.grpc().await?.unary(request, path, ProstCodec::default()).await;
            match answer {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => attempts.fail(status).await?,
            }
        }
    }

    async fn streaming<Q, A, S>(
        &self,
        path: &'static str,
        messages: impl Fn() -> S,
    ) -> Result<Streaming<A>, Error>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
        S: Stream<Item = Q> + Send + 'static,
    {
        let mut attempts = self.attempts();
        loop {
            let path = PathAndQuery::from_static(path);
            let request = self.request(messages());
            let answers = self.grpc().await?.streaming(request, path, ProstCodec::default()).await;
            match answers {
                Ok(answers) => return Ok(answers.into_inner()),
                Err(status) => attempts.fail(status).await?,
            }
        }
    }

    fn attempts(&self) -> Attempts<'_> {
        Attempts { member: self, may_log_in: self.login.is_some() }
    }

    fn request<Q>(&self, message: Q) -> Request<Q> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert(REQUIRE_LEADER, MetadataValue::from_static("true"));
        if let Some(login) = &self.login {
            let token = login.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
            token.map(|token| metadata.insert("token", token));
        }
        request
    }
}

/// A connection to `host:port`, which is made at the first call, and again after it is lost.
fn channel(address: &str, encrypted: bool, certificates: &Certificates) -> Result<Channel, Error> {
    let scheme = if encrypted { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
        .map_err(Error::Setup)?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .keep_alive_while_idle(true);
    if encrypted {
        let tls = ClientTlsConfig::new();
        let mut tls = match &certificates.authorities {
            Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
            None => tls.with_native_roots(),
        };
        if let Some(pem) = &certificates.certificate {
            tls = tls.identity(Identity::from_pem(pem, pem));
        }
        endpoint = endpoint.tls_config(tls).map_err(Error::Setup)?;
    }
    Ok(endpoint.connect_lazy())
}

/// The attempts of one call. There is a second one if the first one's token has expired.
struct Attempts<'m> {
    member: &'m Member,
    may_log_in: bool,
}

impl Attempts<'_> {
    /// Handles a failed attempt. Logs in again if that may help.
    ///
    /// # Errors
    /// When another attempt would not help.
    async fn fail(&mut self, status: Status) -> Result<(), Error> {
        if std::mem::take(&mut self.may_log_in) && wants_login(&status) {
            return self.member.log_in().await;
        }
        Err(status.into())
    }
}

/// Whether a refusal means that a new login is needed: the call has no token, its token has
/// expired, or users were changed since. etcd reports the first and the last case as invalid
/// arguments, so their texts are compared.
fn wants_login(status: &Status) -> bool {
    status.code() == Code::Unauthenticated
        || status.message().contains("user name is empty")
        || status.message().contains("revision of auth store is old")
}
