//! The contract on real servers, started here on free loopback ports: ministack and SeaweedFS.
//!
//! Both come with the Python test environment. They are looked for beside the Python that `REGRAFT_TEST_PYTHON` names and on
//! the path; where they are missing the tests are skipped, but fail when `CI` is set.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use regraft::error::{Kind, Result};
use regraft::ledger::Log;
use regraft::store::{Condition, StorageOptions, Store, block_on};

use crate::coordination::racers_lose_nothing as workers_lose_nothing;
use crate::coordination_model::{Shape, World};
use crate::lease::holders_exclude_each_other;
use crate::ledger::racers_lose_nothing;
use crate::runners_up::{a_worker_may_die_while_a_version_comes_back, runners_up_come_back_by_version};
use crate::store_contract::{Names, contract, large_objects_come_back};
use crate::store_faults::lost_answers_are_resolved;
use crate::store_replace::{probing, replacing, replacing_on_s3, versions_come_back};

const KEY: &str = "admin";
const SECRET: &str = "secret123";

/// A running S3 server; stopped when dropped.
pub(crate) struct Server {
    child: Child,
    endpoint: String,
    checks_signatures: bool,
    _data: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub(crate) fn ministack() -> Option<Self> {
        let [port] = free_ports();
        let data = tempfile::tempdir().expect("a directory");
        let mut command = Command::new(program("ministack")?);
        command.env("BIND_HOST", "127.0.0.1").env("GATEWAY_PORT", port.to_string()).current_dir(data.path());
        Some(Self::start(command, port, data, false))
    }

    pub(crate) fn weed() -> Option<Self> {
        let ports: [u16; 10] = free_ports();
        let data = tempfile::tempdir().expect("a directory");
        let mut command = Command::new(program("weed")?);
        command.arg("mini").arg(format!("-dir={}", data.path().display())).args([
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-volume.max=1000",
            "-webdav=false",
            "-admin.ui=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.telemetry=false",
        ]);
        let names = ["s3", "master", "volume", "filer", "admin"];
        let flags = names.iter().flat_map(|name| [format!("-{name}.port"), format!("-{name}.port.grpc")]);
        for (flag, port) in flags.zip(ports) {
            command.arg(format!("{flag}={port}"));
        }
        command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
        Some(Self::start(command, ports[0], data, true))
    }

    fn start(mut command: Command, port: u16, data: tempfile::TempDir, checks_signatures: bool) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut server = Self {
            child: child.expect("the server starts"),
            endpoint: format!("http://127.0.0.1:{port}"),
            checks_signatures,
            _data: data,
        };
        // Answers when it can say that a bucket is missing.
        let store = server.open("not-there").expect("opens");
        for _ in 0..600 {
            let status = server.child.try_wait().expect("a status");
            assert!(status.is_none(), "the server stopped: {status:?}");
            let listening = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
            let answer = || block_on(store.list("", None).try_collect::<Vec<_>>());
            if listening && answer().is_err_and(|error| error.kind() == Kind::NotFound) {
                return server;
            }
            block_on(async { tokio::time::sleep(Duration::from_millis(100)).await });
        }
        panic!("the server did not come up on {}", server.endpoint);
    }

    fn options(&self) -> StorageOptions {
        let options = [
            ("endpoint", self.endpoint.as_str()),
            ("region", "us-east-1"),
            ("access_key_id", KEY),
            ("secret_access_key", SECRET),
        ];
        options.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    fn open(&self, bucket: &str) -> Result<Store> {
        Store::open(&format!("s3://{bucket}/some where"), &self.options())
    }

    /// Makes a bucket and opens a place in it.
    pub(crate) fn bucket(&self, name: &str) -> Store {
        self.put_bucket(name, &[], "");
        self.open(name).expect("opens")
    }

    /// As [`Server::bucket`], with versions kept.
    pub(crate) fn bucket_with_versions(&self, name: &str) -> Store {
        let store = self.bucket(name);
        let body = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Status>Enabled</Status>\
                    </VersioningConfiguration>";
        self.put_bucket(name, &[("versioning".to_owned(), String::new())], body);
        store
    }

    fn put_bucket(&self, name: &str, query: &[(String, String)], body: &'static str) {
        block_on(async {
            let signer = AmazonS3Builder::new()
                .with_endpoint(&self.endpoint)
                .with_allow_http(true)
                .with_access_key_id(KEY)
                .with_secret_access_key(SECRET)
                .with_bucket_name(name)
                .build()
                .expect("a signer");
            let options = SignedUrlOptions::default().with_query(query.to_vec());
            let url = signer.signed_url_opts(reqwest::Method::PUT, &Path::ROOT, Duration::from_mins(1), &options).await;
            let mut url = url.expect("signed");
            if !self.checks_signatures {
                url.set_query(query.first().map(|(name, _)| name.as_str()));
            }
            let answer = reqwest::Client::new().put(url).body(body).send().await.expect("an answer");
            assert!(answer.status().is_success(), "{}: {:?}", answer.status(), answer.text().await);
        });
    }
}

fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    // All are held at once, so that none comes twice.
    let held: [TcpListener; COUNT] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|listener| listener.local_addr().expect("an address").port())
}

fn program(name: &str) -> Option<PathBuf> {
    let beside =
        std::env::var_os("REGRAFT_TEST_PYTHON").and_then(|python| Some(PathBuf::from(python).parent()?.into()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = beside.into_iter().chain(std::env::split_paths(&path)).map(|place: PathBuf| place.join(name));
    let found = found.into_iter().find(|place| place.is_file());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "`{name}` is not installed; set REGRAFT_TEST_PYTHON");
        println!("skipped: `{name}` is not installed; set REGRAFT_TEST_PYTHON to the Python of the test environment");
    }
    found
}

/// What every server must do.
fn server_keeps_the_contract(server: &Server, names: Names) {
    let store = server.bucket("contract");
    block_on(async {
        contract(&store, names).await;
        lost_answers_are_resolved(&store.child("faults")).await;
        racers_lose_nothing(&store.child("log"), 8, 3).await;
        large_objects_come_back(&store).await;
        holders_exclude_each_other(&store.child("lease"), 4, 3).await;

        // One request per page, no request more than needed.
        let before = store.counters().usage();
        assert_eq!(store.list("listings/", None).try_collect::<Vec<_>>().await.expect("list").len() / 100, 15);
        assert_eq!((store.counters().usage() - before).list, 2);
        let mut log = Log::open(store.sibling(".regraft")).await.expect("log");
        let before = store.counters().usage();
        log.append(&serde_json::json!({"kind": "test"})).await.expect("append");
        let usage = store.counters().usage() - before;
        assert_eq!((usage.put, usage.get, usage.head, usage.list), (1, 0, 0, 0));
    });
    missing_buckets_are_named(server);
    let store = server.bucket("replacing");
    block_on(async {
        replacing(&store).await;
        replacing_on_s3(&store).await;
        probing(&store, &["versions"]).await;
        assert_eq!(store.capabilities().await.expect("capabilities").versions, Some(false));
    });
    let store = server.bucket_with_versions("versions");
    block_on(async {
        assert_eq!(store.capabilities().await.expect("capabilities").versions, Some(true));
        versions_come_back(&store).await;
        probing(&store, &[]).await;
    });
    let kept = |name: &str| World::at(format!("s3://versions/{name}"), server.options(), None, Shape::default());
    runners_up_come_back_by_version(kept);
    a_worker_may_die_while_a_version_comes_back(kept);
    let world = |name: &str| {
        World::at(format!("s3://contract/{name}"), server.options(), None, Shape { chunk: 5, ..Shape::default() })
    };
    workers_lose_nothing(world("two"), 2, 2);
    workers_lose_nothing(world("four"), 4, 2);
}

fn missing_buckets_are_named(server: &Server) {
    let store = server.open("not-there").expect("opens");
    block_on(async {
        let listed = store.list("", None).try_collect::<Vec<_>>().await.expect_err("no bucket");
        let got = store.get("x").await.expect_err("no bucket");
        let mut errors = vec![listed, got];
        // SeaweedFS makes the bucket.
        if !server.checks_signatures {
            errors.push(store.put("x", Bytes::new()).await.expect_err("no bucket"));
            errors.push(store.put_if("x", Bytes::new(), Condition::Absent).await.expect_err("no bucket"));
        }
        for error in errors {
            assert_eq!(error.kind(), Kind::NotFound, "{error}");
            assert!(error.message().contains("s3://not-there/"), "{error}");
        }
    });
}

#[test]
fn ministack_keeps_the_contract() {
    let Some(server) = Server::ministack() else { return };
    server_keeps_the_contract(&server, Names::Flat);
}

#[test]
fn weed_keeps_the_contract_and_checks_signatures() {
    let Some(server) = Server::weed() else { return };
    server_keeps_the_contract(&server, Names::Directories);
    let mut options = server.options();
    options.insert("secret_access_key".into(), "wrong".into());
    let store = Store::open("s3://contract/some where", &options).expect("opens");
    let error = block_on(store.get("x")).expect_err("refused");
    assert_eq!(error.kind(), Kind::Invalid);
    let text = error.to_string();
    assert!(text.starts_with("cannot read `s3://contract/some where/x`: "), "{text}");
    assert!(text.contains("hint: look at the credentials"), "{text}");
    assert!(!text.contains("wrong"), "{text}");
}

#[test]
fn a_server_that_is_not_there_is_unavailable_and_says_how_often_it_was_tried() {
    let [port] = free_ports();
    let options = [("endpoint", format!("http://127.0.0.1:{port}")), ("skip_signature", "true".to_owned())];
    let options = options.map(|(name, value)| (name.to_owned(), value)).into();
    let store = Store::open("s3://b/p", &options).expect("opens").with_patience(3, Duration::from_secs(5));
    let error = block_on(store.get("x")).expect_err("nobody there");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.message().starts_with("cannot read `s3://b/p/x` after 3 tries in "), "{error}");
    assert_eq!((store.counters().usage().get, store.counters().usage().retry), (3, 2));
}

#[test]
fn options_are_checked_before_anything_is_sent() {
    let open = |url: &str, options: &[(&str, &str)]| {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Store::open(url, &options).expect_err("refused").to_string()
    };
    assert_eq!(
        open("s3://b", &[("regoin", "x")]),
        "unknown storage option `regoin` for S3\n\nhint: did you mean `region`?"
    );
    assert_eq!(open("s3://b", &[("bucket", "x")]), "the bucket is named by the URL, not by a storage option");
    assert!(open("s3://b", &[("endpoint", "http://example.org")]).contains("is not encrypted"));
    assert!(
        open("s3://b", &[("access_key_id", "x")]).contains("SecretAccessKey")
            || !open("s3://b", &[("access_key_id", "x")]).is_empty()
    );
    assert!(
        open("s3://b", &[("profile", "no such profile")]).contains("the AWS profile `no such profile` does not exist")
    );
    assert!(open("az://b", &[("acount_name", "x")]).contains("did you mean `account_name`?"));
    assert!(open("gs://b", &[("skip_signatur", "x")]).contains("did you mean `skip_signature`?"));
    assert!(open("https://h/x", &[("timout", "1 s")]).contains("did you mean `timeout`?"));
}
