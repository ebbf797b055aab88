//! What S3 has and `object_store` lacks: a dozen small requests.
//!
//! # Problem
//! A rewrite needs a part copied by range under a condition, completion with `If-Match`, tags, versions, and the headers that
//! `object_store` drops (encryption, storage class, object lock).
//!
//! # Design
//! Requests are built here, signed by `object_store`'s own `AwsAuthorizer` with the credentials of its own chain, and sent by
//! the very HTTP client that it uses, so that settings, keys and connections are the same. One call is one try: attempts,
//! limits, counters and faults are the caller's (`store::attempts`). Answers mean what `remote` says that they mean.
//!
//! # Alternatives considered
//! `aws-sdk-s3` has all of it, and doubles the build. `Signer::signed_url_opts` cannot sign a payload's digest and knows
//! nothing of unsigned access.
//!
//! # Caveats
//! Directory buckets (S3 Express) have sessions of their own and neither tags nor versions: there everything goes through
//! `object_store`, as on other vendors' storage.

mod carried;
mod lists;
mod objects;
pub(super) mod parts;
mod uploads;

use std::fmt::Write;
use std::sync::OnceLock;

use bytes::Bytes;
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::signer::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::de::DeserializeOwned;

pub(super) use self::lists::Marker;
pub(super) use self::uploads::{Completed, PartName, PartPlace, Source};
use super::backend::{Attempt, Failure};
use super::http::listen;
use super::remote;

/// A bucket.
pub(super) struct S3 {
    pub(super) client: HttpClient,
    /// `None` where requests are not signed.
    pub(super) credentials: Option<AwsCredentialProvider>,
    pub(super) region: String,
    pub(super) bucket: String,
    /// The bucket's URL, without a `/` at the end.
    pub(super) root: String,
    pub(super) sign_payload: bool,
    pub(super) request_payer: bool,
    /// Whether tags are written and read.
    pub(super) tagging: bool,
    /// Whether the tags that an upload begins with are there when it is complete; known after the first one.
    pub(super) upload_tags: OnceLock<bool>,
}

/// A request.
struct Call<'a> {
    method: Method,
    /// The key, or `""` for the bucket.
    key: &'a str,
    query: Vec<(&'static str, String)>,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl<'a> Call<'a> {
    fn new(method: Method, key: &'a str) -> Self {
        Self { method, key, query: Vec::new(), headers: Vec::new(), body: Bytes::new() }
    }

    fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    fn version(self, version: Option<&str>) -> Self {
        match version {
            Some(version) => self.query("versionId", version),
            None => self,
        }
    }

    fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

/// A good answer.
struct Answer {
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).map(text)
    }

    fn xml<T: DeserializeOwned>(&self) -> Attempt<T> {
        quick_xml::de::from_reader(self.body.as_ref())
            .map_err(|error| Failure::Transient(format!("the answer is not understood: {error}")))
    }
}

impl S3 {
    async fn send(&self, call: Call<'_>) -> Attempt<Answer> {
        let method = call.method.clone();
        let (outcome, heard) = listen(self.exchange(call)).await;
        let (status, answer) = outcome.map_err(|error| remote::failure(&error, &heard))?;
        let body = String::from_utf8_lossy(&answer.body);
        // A part that is copied and an upload that is completed may fail after the status was sent.
        let failed_late = (200..300).contains(&status)
            && method != Method::GET
            && body.contains("<Error>")
            && body.contains("<Code>");
        if (200..300).contains(&status) && !failed_late {
            return Ok(answer);
        }
        let status = if failed_late { late_status(&body) } else { status };
        let text = format!("status code: {status}: {body}");
        Err(remote::meaning(status, &text, &heard).unwrap_or_else(|| Failure::Transient(remote::reason_of(&text))))
    }

    async fn exchange(&self, call: Call<'_>) -> object_store::Result<(u16, Answer)> {
        let broken =
            |source: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic { store: "S3", source };
        let mut request = self.request(call).map_err(|reason| broken(reason.into()))?;
        if let Some(credentials) = &self.credentials {
            let credential = credentials.get_credential().await?;
            AwsAuthorizer::new(&credential, "s3", &self.region)
                .with_sign_payload(self.sign_payload)
                .with_request_payer(self.request_payer)
                .try_authorize(&mut request, None)?;
        }
        let response = self.client.execute(request).await.map_err(|error| broken(error.into()))?;
        let (head, body) = response.into_parts();
        let body = body.bytes().await.map_err(|error| broken(error.into()))?;
        Ok((head.status.as_u16(), Answer { headers: head.headers, body }))
    }

    fn request(&self, call: Call<'_>) -> Result<HttpRequest, String> {
        let mut url = self.root.clone();
        if !call.key.is_empty() {
            url.push('/');
            url.push_str(&encoded(call.key, true));
        }
        for (index, (name, value)) in call.query.iter().enumerate() {
            url.push(if index == 0 { '?' } else { '&' });
            let _ = write!(url, "{name}={}", encoded(value, false));
        }
        let length = call.body.len();
        let mut request = HttpRequest::new(HttpRequestBody::from(call.body));
        *request.uri_mut() = url.parse().map_err(|error| format!("the URL cannot be written: {error}"))?;
        for (name, value) in &call.headers {
            let bad = || format!("the header `{name}` cannot have the value `{value}`");
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
            let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| bad())?;
            request.headers_mut().insert(name, value);
        }
        if call.method == Method::PUT || call.method == Method::POST {
            request.headers_mut().insert("content-length", HeaderValue::from(length));
        }
        *request.method_mut() = call.method;
        Ok(request)
    }
}

/// The status that an error inside of a good answer would have had.
fn late_status(body: &str) -> u16 {
    match body {
        _ if body.contains("PreconditionFailed") => 412,
        _ if body.contains("ConditionalRequestConflict") => 409,
        _ if body.contains("NoSuch") => 404,
        _ if body.contains("SlowDown") => 503,
        _ if body.contains("AccessDenied") => 403,
        _ if body.contains("Invalid") || body.contains("EntityToo") => 400,
        _ => 500,
    }
}

/// A header's value as text; bytes that are not UTF-8 are Latin-1.
fn text(value: &HeaderValue) -> String {
    let bytes = value.as_bytes();
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
    }
}

/// With everything percent-encoded but what AWS leaves alone in signatures, and `/` where it is `kept`.
fn encoded(text: &str, kept: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            b'/' if kept => encoded.push('/'),
            byte => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_as_signatures_want_them() {
        assert_eq!(encoded("a b/ü+%~", true), "a%20b/%C3%BC%2B%25~");
        assert_eq!(encoded("a/b=", false), "a%2Fb%3D");
    }

    #[test]
    fn errors_inside_of_good_answers_mean_what_their_code_says() {
        assert_eq!(late_status("<Error><Code>PreconditionFailed</Code></Error>"), 412);
        assert_eq!(late_status("<Error><Code>InternalError</Code></Error>"), 500);
        assert_eq!(late_status("<Error><Code>SlowDown</Code></Error>"), 503);
    }
}
