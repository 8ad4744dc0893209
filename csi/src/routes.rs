//! Which service answers a path. Two dozen methods need no web framework.

use std::convert::Infallible;
use std::sync::Arc;

use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;

type Answering = BoxFuture<Response<Body>, Infallible>;
type Answerer = Arc<dyn Fn(Request<Body>) -> Answering + Send + Sync>;

/// gRPC services by their full name (`csi.v1.Node`).
#[derive(Clone, Default)]
pub(crate) struct Routes {
    services: Vec<(&'static str, Answerer)>,
}

impl Routes {
    /// With a further service.
    #[must_use]
    pub(crate) fn with<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = Answering>,
        S: NamedService + Clone + Send + Sync + 'static,
    {
        // Generated servers are always ready, and a clone is two reference counts.
        self.services.push((S::NAME, Arc::new(move |request| service.clone().call(request))));
        self
    }

    /// The service of a path `/package.Service/Method`.
    pub(crate) fn find(&self, path: &str) -> Option<&Answerer> {
        let (service, _) = path.strip_prefix('/')?.split_once('/')?;
        self.services.iter().find(|(name, _)| *name == service).map(|(_, answerer)| answerer)
    }
}
