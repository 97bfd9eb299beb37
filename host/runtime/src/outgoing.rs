//! The outgoing access that a guest may be granted: HTTP requests to named hosts, and lookups of
//! the names in granted addresses.

use std::sync::Arc;

use http::uri::Scheme;
use wasmtime::component::{HasData, Resource};
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{
    Host, HostResolveAddressStream, ResolveAddressStream,
};
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, SocketError};
use wasmtime_wasi::sockets::WasiSocketsCtxView;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::Grants;

/// Decides which HTTP requests may be sent.
pub(crate) struct Outgoing(pub(crate) Arc<Grants>);

type Body = http::Response<WasiBody>;
type Transfer = Box<dyn Future<Output = Result<(), Error>> + Send>;

/// The most bytes that a guest writes to a body at once. Two such parts are buffered until they are
/// sent.
const BODY_PART: usize = 16 * 1024;

impl WasiHttpHooks for Outgoing {
    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        1
    }

    /// A guest that may send nothing needs no bodies. It can make them, but hardly fill them.
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        let may_send = self.0.http.as_ref().is_some_and(|hosts| !hosts.is_empty());
        if may_send { BODY_PART } else { 1 }
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Transfer,
    ) -> Box<dyn Future<Output = Result<(Body, Transfer), Error>> + Send> {
        let uri = request.uri();
        let default = if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 };
        let hosts = self.0.http.as_deref().unwrap_or_default();
        let granted = uri.host().is_some_and(|host| {
            hosts.iter().any(|granted| granted.allows(host, uri.port_u16(), default))
        });
        Box::new(async move {
            if !granted {
                return Err(Error::HttpRequestDenied);
            }
            let sent = wasmtime_wasi_http::default_send_request(request, options).await?;
            let (response, transfer) = sent;
            let response = response.map(http_body_util::BodyExt::boxed_unsync);
            Ok((response, Box::new(transfer) as Transfer))
        })
    }
}

/// `wasi:sockets/ip-name-lookup`, for granted names only. A lookup sends the name to the servers of
/// its domain, so a guest could leak data through it.
pub(crate) struct NameLookup;

impl HasData for NameLookup {
    type Data<'a> = GrantedNames<'a>;
}

/// The names that one guest may look up.
pub(crate) struct GrantedNames<'a> {
    pub(crate) grants: Arc<Grants>,
    pub(crate) sockets: WasiSocketsCtxView<'a>,
}

impl Host for GrantedNames<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> Result<Resource<ResolveAddressStream>, SocketError> {
        if !self.grants.may_look_up(&name) {
            return Err(ErrorCode::AccessDenied.into());
        }
        self.sockets.resolve_addresses(network, name)
    }
}

impl network::Host for GrantedNames<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        self.sockets.convert_error_code(error)
    }

    fn network_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        network::Host::network_error_code(&mut self.sockets, error)
    }
}

impl network::HostNetwork for GrantedNames<'_> {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.sockets, network)
    }
}

impl HostResolveAddressStream for GrantedNames<'_> {
    fn resolve_next_address(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> Result<Option<IpAddress>, SocketError> {
        self.sockets.resolve_next_address(stream)
    }

    fn subscribe(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        HostResolveAddressStream::subscribe(&mut self.sockets, stream)
    }

    fn drop(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        HostResolveAddressStream::drop(&mut self.sockets, stream)
    }
}
