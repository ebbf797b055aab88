//! From a bucket's URL and settings to a connection.
//!
//! Settings come, first match first, from the storage options, from the vendor's environment variables, and (S3) from the
//! AWS profile; then `object_store` asks the container or the machine for keys. Certificates are checked against
//! those of the system, or the file that `SSL_CERT_FILE` or (S3) `AWS_CA_BUNDLE` names.

use std::fmt::Debug;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as S3, AwsCredentialProvider};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::{Certificate, ClientConfigKey, ClientOptions, RetryConfig};

use super::StorageOptions;
use super::http::Connector;
use super::options::Settings;
use super::profile::Profile;
use super::remote::{Dialect, Remote};
use super::s3::S3 as Requests;
use crate::error::{Error, Result};

/// Seconds without a byte; `object_store` would give a whole request 30 s, too short for 64 MiB on a slow line.
const TIMEOUTS: [(ClientConfigKey, &str); 3] = [
    (ClientConfigKey::Timeout, "3600 seconds"),
    (ClientConfigKey::ReadTimeout, "120 seconds"),
    (ClientConfigKey::ConnectTimeout, "10 seconds"),
];

const S3_OPTIONS: &[&str] = &[
    "access_key_id",
    "secret_access_key",
    "session_token",
    "profile",
    "region",
    "endpoint",
    "skip_signature",
    "virtual_hosted_style_request",
    "request_payer",
    "server_side_encryption",
    "sse_kms_key_id",
    "sse_bucket_key_enabled",
    "sse_customer_key_base64",
    "checksum_algorithm",
    "unsigned_payload",
    "s3_express",
    "role_arn",
    "role_session_name",
    "web_identity_token_file",
    "metadata_endpoint",
    "imdsv1_fallback",
];
const GOOGLE_OPTIONS: &[&str] = &[
    "service_account",
    "service_account_key",
    "application_credentials",
    "bearer_token",
    "base_url",
    "skip_signature",
];
const AZURE_OPTIONS: &[&str] = &[
    "account_name",
    "account_key",
    "client_id",
    "client_secret",
    "tenant_id",
    "sas_token",
    "bearer_token",
    "endpoint",
    "use_emulator",
    "use_azure_cli",
    "skip_signature",
];

/// Builds a connection: the builders of the vendors have these methods in common, and no trait.
macro_rules! build {
    ($builder:expr, $connector:expr, $service:literal) => {
        $builder
            .with_retry(no_retries())
            .with_http_connector($connector.clone())
            .build()
            .map_err(|error| malformed($service, &error))?
    };
}

/// `s3://bucket`.
pub(super) fn s3(bucket: &str, options: &StorageOptions) -> Result<Remote> {
    let mut options = options.clone();
    let asked = profile_name(&mut options)?;
    let mut settings = Settings::<S3>::given(&options, "S3", S3_OPTIONS)?;
    not_given(&settings, S3::Bucket, "bucket")?;
    let mut environment = Settings::<S3>::environment("AWS_");
    environment.remove(&[S3::Bucket]);
    if settings.has(&[S3::Endpoint, S3::S3Endpoint]) {
        environment.remove(&[S3::Endpoint, S3::S3Endpoint]);
    }
    // Half a pair of keys from here and half from there would be refused by the service, with a riddle.
    if asked.is_some() || settings.has(&[S3::AccessKeyId, S3::SecretAccessKey, S3::SkipSignature]) {
        environment.remove(&[S3::AccessKeyId, S3::SecretAccessKey, S3::Token]);
    }
    if settings.has(&[S3::Region, S3::DefaultRegion]) {
        environment.remove(&[S3::Region, S3::DefaultRegion]);
    }
    let explicit = asked.is_some();
    settings.or_all(environment);
    let name =
        asked.or_else(|| std::env::var("AWS_PROFILE").ok()).or_else(|| std::env::var("AWS_DEFAULT_PROFILE").ok());
    let anonymous = settings.get(S3::SkipSignature).is_some_and(|value| value != "false");
    let keys_known = anonymous || settings.has(&[S3::AccessKeyId, S3::SecretAccessKey, S3::WebIdentityTokenFile]);
    let profile = match &name {
        Some(name) => Profile::read(name, explicit || !keys_known)?,
        None => Profile::read("default", false)?,
    };
    if !keys_known && let (Some(id), Some(secret)) = (profile.access_key_id, profile.secret_access_key) {
        settings.or(S3::AccessKeyId, id);
        settings.or(S3::SecretAccessKey, secret);
        if let Some(token) = profile.session_token {
            settings.or(S3::Token, token);
        }
    }
    if let Some(region) = profile.region
        && !settings.has(&[S3::Region, S3::DefaultRegion])
    {
        settings.or(S3::Region, region);
    }
    if let Some(endpoint) = profile.endpoint
        && !settings.has(&[S3::Endpoint, S3::S3Endpoint])
    {
        settings.or(S3::Endpoint, endpoint);
    }
    let endpoint = settings.get(S3::S3Endpoint).or(settings.get(S3::Endpoint)).map(str::to_owned);
    client_settings(&mut settings, endpoint.as_deref(), S3::Client)?;
    let mut client = ClientOptions::new();
    if let Some(path) = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()) {
        for certificate in certificates(&path)? {
            client = client.with_root_certificate(certificate);
        }
    }
    let mut builder = AmazonS3Builder::new().with_client_options(client);
    for (key, value) in settings.into_iter() {
        builder = builder.with_config(key, value);
    }
    let connector = Connector::new();
    let builder = builder.with_bucket_name(bucket);
    let asked = builder.clone();
    let store = Arc::new(build!(builder, connector, "S3"));
    let remote = Remote::service(store.clone(), store.clone(), store.clone(), Dialect::ETags);
    Ok(match s3_requests(bucket, &asked, &connector, store.credentials()) {
        Some(requests) => remote.with_s3(requests),
        None => remote,
    })
}

/// The requests that `object_store` lacks, with its own settings; `None` for directory buckets.
fn s3_requests(
    bucket: &str,
    builder: &AmazonS3Builder,
    connector: &Connector,
    credentials: &AwsCredentialProvider,
) -> Option<Requests> {
    let value = |key: S3| builder.get_config_value(&key);
    let says = |key: S3| {
        value(key).is_some_and(|text| matches!(text.to_ascii_lowercase().as_str(), "1" | "true" | "on" | "yes" | "y"))
    };
    if says(S3::S3Express) {
        return None;
    }
    let region = value(S3::Region).unwrap_or_else(|| "us-east-1".to_owned());
    // As `AmazonS3Builder::build` does it.
    let root = match (value(S3::S3Endpoint).or_else(|| value(S3::Endpoint)), says(S3::VirtualHostedStyleRequest)) {
        (Some(endpoint), true) => endpoint.trim_end_matches('/').to_owned(),
        (Some(endpoint), false) => format!("{}/{bucket}", endpoint.trim_end_matches('/')),
        (None, true) => format!("https://{bucket}.s3.{region}.amazonaws.com"),
        (None, false) => format!("https://s3.{region}.amazonaws.com/{bucket}"),
    };
    Some(Requests {
        client: connector.last()?,
        credentials: (!says(S3::SkipSignature)).then(|| credentials.clone()),
        region,
        bucket: bucket.to_owned(),
        root,
        sign_payload: !says(S3::UnsignedPayload),
        request_payer: says(S3::RequestPayer),
        tagging: !says(S3::DisableTagging),
        upload_tags: OnceLock::new(),
    })
}

/// `gs://bucket`.
pub(super) fn google(bucket: &str, options: &StorageOptions) -> Result<Remote> {
    let mut settings = Settings::<GoogleConfigKey>::given(options, "Google Cloud Storage", GOOGLE_OPTIONS)?;
    not_given(&settings, GoogleConfigKey::Bucket, "bucket")?;
    settings.or_all(Settings::environment("GOOGLE_"));
    let endpoint = settings.get(GoogleConfigKey::BaseUrl).map(str::to_owned);
    client_settings(&mut settings, endpoint.as_deref(), GoogleConfigKey::Client)?;
    let mut builder = GoogleCloudStorageBuilder::new();
    for (key, value) in settings.into_iter() {
        builder = builder.with_config(key, value);
    }
    let store = Arc::new(build!(builder.with_bucket_name(bucket), Connector::new(), "Google Cloud Storage"));
    Ok(Remote::service(store.clone(), store.clone(), store, Dialect::Generations))
}

/// `az://container`.
pub(super) fn azure(container: &str, options: &StorageOptions) -> Result<Remote> {
    let mut settings = Settings::<AzureConfigKey>::given(options, "Azure Blob Storage", AZURE_OPTIONS)?;
    not_given(&settings, AzureConfigKey::ContainerName, "container")?;
    settings.or_all(Settings::environment("AZURE_"));
    let endpoint = settings.get(AzureConfigKey::Endpoint).map(str::to_owned);
    client_settings(&mut settings, endpoint.as_deref(), AzureConfigKey::Client)?;
    let mut builder = MicrosoftAzureBuilder::new();
    for (key, value) in settings.into_iter() {
        builder = builder.with_config(key, value);
    }
    let store = Arc::new(build!(builder.with_container_name(container), Connector::new(), "Azure Blob Storage"));
    Ok(Remote::service(store.clone(), store.clone(), store, Dialect::ETags))
}

/// `http(s)://host`, to read from.
pub(super) fn http(origin: &str, options: &StorageOptions) -> Result<Remote> {
    let mut settings = Settings::<ClientConfigKey>::given(options, "HTTP", &[])?;
    if origin.starts_with("http://") {
        settings.or(ClientConfigKey::AllowHttp, "true");
    }
    for (key, value) in TIMEOUTS {
        settings.or(key, value);
    }
    let mut builder = HttpBuilder::new().with_url(origin);
    for (key, value) in settings.into_iter() {
        builder = builder.with_config(key, value);
    }
    Ok(Remote::read_only(Arc::new(build!(builder, Connector::new(), "HTTP"))))
}

/// Our own layer retries, so that every try is counted.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn malformed(service: &str, error: &object_store::Error) -> Error {
    Error::invalid(format!("the storage options for {service} do not fit: {error}"))
}

/// `profile` is ours: `object_store` has no such key.
fn profile_name(options: &mut StorageOptions) -> Result<Option<String>> {
    let names: Vec<String> = options
        .keys()
        .filter(|name| matches!(name.to_ascii_lowercase().as_str(), "profile" | "aws_profile"))
        .cloned()
        .collect();
    match names.as_slice() {
        [] => Ok(None),
        [name] => Ok(options.remove(name)),
        [first, second, ..] => {
            Err(Error::invalid(format!("the storage options `{first}` and `{second}` are one setting, given twice")))
        }
    }
}

fn not_given<K: FromStr + PartialEq + Copy + Debug>(settings: &Settings<K>, key: K, what: &str) -> Result<()> {
    match settings.get(key) {
        Some(_) => Err(Error::invalid(format!("the {what} is named by the URL, not by a storage option"))),
        None => Ok(()),
    }
}

/// What every client gets: patience, and plain HTTP where that is permitted. `key` says a client's setting as the service's.
fn client_settings<K: FromStr + PartialEq + Copy + Debug>(
    settings: &mut Settings<K>,
    endpoint: Option<&str>,
    key: impl Fn(ClientConfigKey) -> K,
) -> Result<()> {
    let allow_http = key(ClientConfigKey::AllowHttp);
    if plain_http(endpoint, settings.get(allow_http))? {
        settings.or(allow_http, "true");
    }
    for (name, value) in TIMEOUTS {
        settings.or(key(name), value);
    }
    Ok(())
}

/// Whether the endpoint is plain HTTP; on this machine that needs no permission.
fn plain_http(endpoint: Option<&str>, allowed: Option<&str>) -> Result<bool> {
    let Some(endpoint) = endpoint.filter(|endpoint| endpoint.starts_with("http://")) else { return Ok(false) };
    let host = url::Url::parse(endpoint).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    if matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]") || allowed.is_some() {
        return Ok(true);
    }
    Err(Error::invalid(format!("the endpoint `{endpoint}` is not encrypted"))
        .hint("write it with `https://`, or permit it with the storage option `allow_http: true`"))
}

fn certificates(path: &std::ffi::OsStr) -> Result<Vec<Certificate>> {
    let malformed = |reason: String| Error::invalid(format!("`AWS_CA_BUNDLE` names `{}`: {reason}", path.display()));
    let text = std::fs::read(path).map_err(|error| malformed(error.to_string()))?;
    Certificate::from_pem_bundle(&text).map_err(|error| malformed(error.to_string()))
}
