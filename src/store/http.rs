//! The HTTP client below `object_store`: TLS, and the status of each answer.
//!
//! `object_store` folds answers into errors whose status can be read only from their text. Each try therefore runs inside
//! a task-local note of the last answer's status, which decides what the failure means.
//!
//! The keys of a virtual machine or a container come from an address on the link (169.254.x.x). It has no retry here but
//! three quick tries of its own: a laptop without keys must hear so within seconds, not after two minutes of patience.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

/// What was heard during a try.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// The status of the last answer, 0 where there was none.
    pub(super) status: u16,
    /// No keys could be had.
    pub(super) no_keys: bool,
    /// Where the bucket is, when the answer said so.
    pub(super) region: Option<String>,
    /// How many tags the object has, when the answer said so (Azure).
    pub(super) tags: u64,
}

tokio::task_local! {
    static HEARD: RefCell<Heard>;
}

/// Runs one try; says what was heard meanwhile.
pub(super) async fn listen<F: Future>(work: F) -> (F::Output, Heard) {
    HEARD
        .scope(RefCell::default(), async {
            let output = work.await;
            (output, HEARD.with(RefCell::take))
        })
        .await
}

/// Makes clients that note what they hear; remembers the last one.
#[derive(Debug, Clone, Default)]
pub(super) struct Connector {
    clients: Arc<ReqwestConnector>,
    last: Arc<Mutex<Option<HttpClient>>>,
}

impl Connector {
    pub(super) fn new() -> Self {
        static PROVIDER: Once = Once::new();
        // `reqwest` is built without a cryptography of its own. An error means that somebody installed one before.
        PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        Self::default()
    }

    /// The client that was made last: a service's builder makes those that fetch keys before its own.
    pub(super) fn last(&self) -> Option<HttpClient> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = HttpClient::new(Listening(self.clients.connect(options)?));
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
        Ok(client)
    }
}

#[derive(Debug)]
struct Listening(HttpClient);

#[async_trait]
impl HttpService for Listening {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if request.uri().host().is_some_and(|host| host.starts_with("169.254.")) {
            return self.keys(request).await;
        }
        let outcome = self.0.execute(request).await;
        note(match &outcome {
            Ok(response) => Heard {
                status: response.status().as_u16(),
                no_keys: false,
                region: response
                    .headers()
                    .get("x-amz-bucket-region")
                    .and_then(|region| region.to_str().ok())
                    .map(str::to_owned),
                tags: response
                    .headers()
                    .get("x-ms-tag-count")
                    .and_then(|count| count.to_str().ok()?.parse().ok())
                    .unwrap_or_default(),
            },
            Err(_) => Heard::default(),
        });
        outcome
    }
}

impl Listening {
    async fn keys(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let outcome = self.0.execute(request.clone()).await;
            let good = outcome.as_ref().is_ok_and(|response| !response.status().is_server_error());
            if good || tries == 3 {
                let refused = !outcome.as_ref().is_ok_and(|response| response.status().is_success());
                note(Heard { no_keys: refused, ..Heard::default() });
                return outcome;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn note(heard: Heard) {
    // Outside of a try nobody listens.
    let _ = HEARD.try_with(|cell| drop(cell.replace(heard)));
}
