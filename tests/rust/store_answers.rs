//! What each answer of a service leads to, against a service that answers from a script.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use regraft::error::Kind;
use regraft::store::{Condition, ETag, PutAnswer, StorageOptions, Store, block_on};

/// One answer: status line and body, or a broken connection.
#[derive(Debug, Clone)]
enum Answer {
    Status(&'static str, String),
    /// The body ends before its announced length.
    Torn(&'static str),
    Reset,
}

fn status(status: &'static str) -> Answer {
    Answer::Status(status, String::new())
}

fn code(status: &'static str, code: &str) -> Answer {
    Answer::Status(status, format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>"))
}

fn body(text: &str) -> Answer {
    Answer::Status("200 OK", text.to_owned())
}

/// A bucket behind the script, and the first lines of the requests that it heard.
fn scripted(answers: Vec<Answer>) -> (Store, Arc<Mutex<Vec<String>>>) {
    let (address, heard) = serving(answers);
    let options = [("endpoint", format!("http://{address}")), ("skip_signature", "true".to_owned())];
    let options: StorageOptions = options.map(|(name, value)| (name.to_owned(), value)).into();
    let store = Store::open("s3://b/p", &options).expect("opens");
    (store.with_patience(5, Duration::from_mins(1)), heard)
}

/// A service that answers from the script.
fn serving(answers: Vec<Answer>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let requests = heard.clone();
    std::thread::spawn(move || {
        for answer in answers {
            let (stream, _) = listener.accept().expect("a connection");
            requests.lock().expect("no panic").push(serve(stream, &answer));
        }
    });
    (address, heard)
}

fn serve(mut stream: TcpStream, answer: &Answer) -> String {
    let mut reader = BufReader::new(stream.try_clone().expect("a clone"));
    let mut head = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        head.push(line);
    }
    reader.read_exact(&mut vec![0; length]).expect("a body");
    let (status, body, length) = match answer {
        Answer::Status(status, body) => (*status, body.as_str(), body.len()),
        Answer::Torn(body) => ("200 OK", *body, body.len() + 7),
        Answer::Reset => ("", "", 0),
    };
    if !status.is_empty() {
        let headers = "ETag: \"e1\"\r\nx-amz-bucket-region: r-2\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\nConnection: close\r\n";
        let answer = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).expect("sent");
    }
    head.swap_remove(0)
}

#[test]
fn slow_down_is_obeyed_and_counted() {
    let slow = code("503 Slow Down", "SlowDown");
    let (store, _) = scripted(vec![slow.clone(), slow, status("429 Too Many Requests"), body("x")]);
    assert_eq!(block_on(store.get("k")).unwrap().unwrap().bytes, "x");
    let usage = store.counters().usage();
    assert_eq!((usage.get, usage.retry, usage.throttle, usage.bytes_read), (4, 3, 3, 1));
}

#[test]
fn broken_answers_are_asked_again() {
    let answers = vec![Answer::Reset, Answer::Torn("ab"), status("500 Internal Server Error"), body("abc")];
    let (store, _) = scripted(answers);
    assert_eq!(block_on(store.get("k")).unwrap().unwrap().bytes, "abc");
    assert_eq!(store.counters().usage().retry, 3);
}

#[test]
fn a_refusal_after_a_lost_answer_is_read_back() {
    for (stored, ours) in [("mine", true), ("yours", false)] {
        let (store, heard) = scripted(vec![Answer::Reset, status("412 Precondition Failed"), body(stored)]);
        let answer = block_on(store.put_if("k", Bytes::from_static(b"mine"), Condition::Absent)).unwrap();
        assert_eq!(answer == PutAnswer::Ours(ETag("\"e1\"".into())), ours);
        let heard = heard.lock().unwrap();
        assert_eq!(*heard, ["PUT /b/p/k HTTP/1.1", "PUT /b/p/k HTTP/1.1", "GET /b/p/k HTTP/1.1"]);
    }
}

#[test]
fn a_first_refusal_is_theirs_without_reading_back() {
    let matches = || Condition::Matches(ETag("\"e0\"".into()));
    for (answer, condition) in [
        (status("412 Precondition Failed"), Condition::Absent),
        (status("412 Precondition Failed"), matches()),
        (code("404 Not Found", "NoSuchKey"), matches()),
    ] {
        let (store, _) = scripted(vec![answer]);
        assert_eq!(block_on(store.put_if("k", Bytes::new(), condition)).unwrap(), PutAnswer::Theirs);
        assert_eq!(store.counters().usage().put, 1);
    }
}

#[test]
fn two_conditional_puts_that_met_are_tried_again() {
    let conflict = code("409 Conflict", "ConditionalRequestConflict");
    for condition in [Condition::Absent, Condition::Matches(ETag("\"e0\"".into()))] {
        let (store, _) = scripted(vec![conflict.clone(), status("200 OK")]);
        let answer = block_on(store.put_if("k", Bytes::new(), condition)).unwrap();
        assert_eq!(answer, PutAnswer::Ours(ETag("\"e1\"".into())));
    }
}

#[test]
fn answers_for_good_are_told_at_once_with_the_reason() {
    for (answer, kind, reason) in [
        (code("403 Forbidden", "AccessDenied"), Kind::Invalid, "AccessDenied: m"),
        (code("400 Bad Request", "ExpiredToken"), Kind::Invalid, "ExpiredToken: m"),
        (code("404 Not Found", "NoSuchBucket"), Kind::NotFound, "the bucket does not exist"),
        (status("301 Moved Permanently"), Kind::Invalid, "the bucket is in the region `r-2`"),
        (code("400 Bad Request", "AuthorizationHeaderMalformed"), Kind::Invalid, "in the region `r-2`"),
        (code("501 Not Implemented", "NotImplemented"), Kind::Invalid, "NotImplemented: m"),
    ] {
        let (store, _) = scripted(vec![answer]);
        let error = block_on(store.get("k")).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().starts_with("cannot read `s3://b/p/k`: "), "{error}");
        assert!(error.message().contains(reason), "{error}");
    }
}

#[test]
fn a_page_that_fails_is_asked_again_by_its_token() {
    let page = |key: &str, rest: &str| {
        body(&format!(
            "<ListBucketResult><Contents><Key>p/{key}</Key><Size>1</Size><LastModified>2024-01-01T00:00:00.000Z\
             </LastModified><ETag>\"e\"</ETag></Contents>{rest}</ListBucketResult>"
        ))
    };
    let next = "<NextContinuationToken>t</NextContinuationToken><IsTruncated>true</IsTruncated>";
    let answers = vec![page("a", next), status("500 Internal Server Error"), Answer::Reset, page("b", "")];
    let (store, heard) = scripted(answers);
    let keys: Vec<String> = block_on(store.list("", None).map_ok(|meta| meta.key).try_collect()).unwrap();
    assert_eq!(keys, ["a", "b"]);
    assert_eq!((store.counters().usage().list, store.counters().usage().retry), (4, 2));
    let heard = heard.lock().unwrap();
    assert!(heard[1..].iter().all(|request| request.contains("continuation-token=t")), "{heard:?}");
}

#[test]
fn encrypted_connections_need_nothing_set_up() {
    let options = [("endpoint", "https://127.0.0.1:1".to_owned()), ("skip_signature", "true".to_owned())];
    let options: StorageOptions = options.map(|(name, value)| (name.to_owned(), value)).into();
    let secure = Store::open("s3://b", &options).unwrap().with_patience(2, Duration::from_secs(5));
    let error = block_on(secure.get("k")).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.message().contains("refused"), "{error}");
}

#[test]
fn tags_of_azure_are_noticed_since_they_would_be_lost() {
    for (tags, unread) in [("\r\nx-ms-tag-count: 2", true), ("\r\nx-ms-tag-count: 0", false), ("", false)] {
        let line: &'static str = format!("200 OK{tags}").leak();
        let (address, heard) = serving(vec![status(line)]);
        let options = [
            ("endpoint", format!("http://{address}")),
            ("account_name", "a".to_owned()),
            ("skip_signature", "true".to_owned()),
            ("allow_http", "true".to_owned()),
        ];
        let options: StorageOptions = options.map(|(name, value)| (name.to_owned(), value)).into();
        let store = Store::open("az://c/p", &options).expect("opens");
        let found = block_on(store.inspect("k")).expect("inspected").expect("present");
        assert_eq!(found.tags_unread, unread, "{tags:?}");
        assert!(heard.lock().unwrap()[0].starts_with("HEAD /c/p/k"), "{heard:?}");
    }
}
