//! Invalid requests and misbehaving clients over bare sockets: each gets Kubernetes' Status, and the server survives.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::support::apiserver::ApiServer;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const REVISIONS: &str = "/apis/apps/v1/namespaces/default/controllerrevisions";
const JSON: &str = "application/json";

fn request(method: &str, path: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn config_map(name: &str, data: &str) -> String {
    format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{data}}}"#)
}

/// The code of an answer, and the rest of it.
#[track_caller]
fn answered(server: &ApiServer, request: &[u8]) -> (u16, String) {
    let answer = server.say(request, false);
    let code = answer.strip_prefix("HTTP/1.1 ").and_then(|it| it.get(..3)).and_then(|it| it.parse().ok());
    (code.unwrap_or_else(|| panic!("no answer: {answer:?}")), answer)
}

/// Invalid bodies, with the code and a part of the response.
#[test]
fn bodies() {
    let dir = tempfile::tempdir().unwrap();
    let server = ApiServer::start(dir.path(), &[]);
    let before = server.memory();
    let deep = |open: &str, close: &str| config_map("deep", &format!(r#"{{"a":{}{}}}"#, open.repeat(100_000), close.repeat(100_000)));
    let bomb = {
        let levels = (1..12).map(|n| format!("  l{n}: &l{n} [{}]\n", vec![format!("*l{}", n - 1); 10].join(", ")));
        format!("metadata:\n  name: bomb\nrevision: 1\ndata:\n  l0: &l0 [a]\n{}", levels.collect::<String>())
    };
    let deployment = |replicas: &str| {
        format!(r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"d"}},"spec":{{"replicas":{replicas}}}}}"#)
    };
    let replicas =
        |number: &str| format!("json: cannot unmarshal number {number} into Go struct field DeploymentSpec.spec.replicas of type int32");
    for (what, path, content_type, body, code, holds) in [
        (
            "4 MB",
            CONFIG_MAPS,
            JSON,
            config_map("a", &format!(r#"{{"a":"{}"}}"#, "x".repeat(4 << 20))),
            413,
            "Request entity too large: limit is 3145728".to_owned(),
        ),
        ("nothing", CONFIG_MAPS, JSON, String::new(), 400, "BadRequest".to_owned()),
        ("deep arrays", CONFIG_MAPS, JSON, deep("[", "]"), 400, "BadRequest".to_owned()),
        ("deep objects", CONFIG_MAPS, JSON, deep(r#"{"a":"#, "}"), 400, "BadRequest".to_owned()),
        ("deep YAML", CONFIG_MAPS, "application/yaml", format!("data: {}", "[".repeat(100_000)), 400, "BadRequest".to_owned()),
        ("many aliases", REVISIONS, "application/yaml", bomb, 400, "BadRequest".to_owned()),
        (
            "a wrong type",
            CONFIG_MAPS,
            JSON,
            config_map("a", "5"),
            400,
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type map[string]string".to_owned(),
        ),
        ("another kind", CONFIG_MAPS, JSON, r#"{"apiVersion":"v1","kind":"Secret"}"#.to_owned(), 400, "BadRequest".to_owned()),
        ("beyond 32 bits", DEPLOYMENTS, JSON, deployment("3000000000"), 400, replicas("3000000000")),
        ("beyond 64 bits", DEPLOYMENTS, JSON, deployment("99999999999999999999"), 400, "json: cannot unmarshal number".to_owned()),
        ("a fraction", DEPLOYMENTS, JSON, deployment("0.5"), 400, replicas("0.5")),
        ("beyond everything", DEPLOYMENTS, JSON, deployment("1e999"), 400, "BadRequest".to_owned()),
        ("not a number", DEPLOYMENTS, JSON, deployment("NaN"), 400, "BadRequest".to_owned()),
        ("a bare NUL", CONFIG_MAPS, JSON, config_map("a", "{\"a\":\"\0\"}"), 400, "BadRequest".to_owned()),
        ("NUL in a name", CONFIG_MAPS, JSON, config_map("a\\u0000b", "{}"), 422, "Invalid value".to_owned()),
        ("a long name", CONFIG_MAPS, JSON, config_map(&"a".repeat(300), "{}"), 422, "must be no more than 253".to_owned()),
        ("a path for a name", CONFIG_MAPS, JSON, config_map("../../etc", "{}"), 422, "metadata.name".to_owned()),
        (
            "the same key twice",
            &format!("{CONFIG_MAPS}?fieldValidation=Strict"),
            JSON,
            config_map("a", r#"{"a":"1","a":"2"}"#),
            400,
            r#"strict decoding error: duplicate field \"data.a\""#.to_owned(),
        ),
        (
            "protobuf without an end",
            CONFIG_MAPS,
            "application/vnd.kubernetes.protobuf",
            "k8s\0\x0a\x7fxx".to_owned(),
            400,
            "BadRequest".to_owned(),
        ),
        ("not protobuf", CONFIG_MAPS, "application/vnd.kubernetes.protobuf", "{}".to_owned(), 400, "expected prefix".to_owned()),
        ("another media type", CONFIG_MAPS, "text/plain", "a".to_owned(), 415, "UnsupportedMediaType".to_owned()),
        (
            "many causes",
            CONFIG_MAPS,
            JSON,
            config_map("a", &format!("{{{}}}", (0..50_000).map(|n| format!("\"k {n}\":\"\"")).collect::<Vec<_>>().join(","))),
            422,
            "Invalid value".to_owned(),
        ),
        (
            "many warnings",
            CONFIG_MAPS,
            JSON,
            config_map("warned", &format!("{{}},{}", (0..50_000).map(|n| format!("\"k{n}\":\"\"")).collect::<Vec<_>>().join(","))),
            201,
            "warning: 299 - ".to_owned(),
        ),
        ("NUL, escaped, in a value", CONFIG_MAPS, JSON, config_map("nul", r#"{"a":"\u0000"}"#), 201, r#""a":"\u0000""#.to_owned()),
        (
            "the same key twice, with a warning",
            CONFIG_MAPS,
            JSON,
            config_map("twice", r#"{"a":"1","a":"2"}"#),
            201,
            r#"warning: 299 - "duplicate field \"data.a\"""#.to_owned(),
        ),
    ] {
        let (found, answer) = answered(&server, &request("POST", path, content_type, body.as_bytes()));
        assert!(found == code && answer.contains(&holds), "{what}: {answer}");
    }
    // Go's decoder replaces invalid UTF-8 by U+FFFD.
    let (code, answer) = answered(&server, &request("POST", CONFIG_MAPS, JSON, &invalid_utf8()));
    assert!(code == 201 && answer.contains("x\u{fffd}y"), "{answer}");
    assert_eq!(answered(&server, &request("POST", CONFIG_MAPS, "application/yaml", b"data: {a: \"\xff\"}")).0, 400);
    // A body without an end is cut off.
    let endless = [
        format!("POST {CONFIG_MAPS} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").into_bytes(),
        [&b"10000\r\n"[..], &[b'x'; 65536], b"\r\n"].concat().repeat(640),
    ]
    .concat();
    assert_eq!(answered(&server, &endless).0, 413);
    assert!(server.get("/readyz").starts_with("HTTP/1.1 200"));
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 200 << 20, "it took {grown} bytes");
}

fn invalid_utf8() -> Vec<u8> {
    let text = config_map("utf", r#"{"a":"x?y"}"#);
    text.bytes().map(|it| if it == b'?' { 0xff } else { it }).collect()
}

#[test]
fn heads_and_connections() {
    let dir = tempfile::tempdir().unwrap();
    let server = ApiServer::start(dir.path(), &[]);
    let get = |path: &str, headers: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n").into_bytes();
    let long = |count: usize| (0..count).map(|n| format!("v{n}")).collect::<Vec<_>>().join(",");
    for (what, request, code) in [
        ("no HTTP", b"GARBAGE\r\n\r\n".to_vec(), 400),
        ("a head without an end", vec![b'x'; 1 << 20], 431),
        ("a large header", get("/api", &format!("x-large: {}\r\n", "x".repeat(1 << 20))), 431),
        ("many headers", get("/api", &(0..500).map(|n| format!("x-{n}: 1\r\n")).collect::<String>()), 431),
        ("a long path", get(&format!("/{}", "a".repeat(100_000)), ""), 414),
        ("a large selector", get(&format!("{CONFIG_MAPS}?labelSelector=a%20in%20({})", long(8000)), ""), 200),
        ("half a selector", get(&format!("{CONFIG_MAPS}?labelSelector=a%20in%20(b"), ""), 400),
        ("a place that is none", get(&format!("{CONFIG_MAPS}?limit=1&continue=%ff%fe"), ""), 400),
        ("escapes that are none", get(&format!("{CONFIG_MAPS}/%zz%"), ""), 404),
        ("up and away", get(&format!("{CONFIG_MAPS}/..%2f..%2fpods"), ""), 404),
        ("NUL in a path", get(&format!("{CONFIG_MAPS}/a%00b"), ""), 404),
        ("a length that is none", b"POST /api HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".to_vec(), 400),
        ("two lengths", b"POST /api HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_vec(), 400),
        ("no media type", get(CONFIG_MAPS, "accept: image/png\r\n"), 406),
    ] {
        let (found, answer) = answered(&server, &request);
        assert_eq!(found, code, "{what}: {}", &answer[..answer.len().min(500)]);
    }
    // Clients that leave in the middle: of a head, of a body, of an answer.
    for half in [
        b"GET /api/v1/pods HT".to_vec(),
        format!("POST {CONFIG_MAPS} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{").into_bytes(),
        format!("GET {CONFIG_MAPS}?watch=true HTTP/1.1\r\nhost: x\r\n\r\n").into_bytes(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
    ] {
        server.say(&half, true);
    }
    assert!(server.get("/readyz").starts_with("HTTP/1.1 200"));
}

/// Ten thousand clients that wait cost little, and hear of a change.
#[test]
fn ten_thousand_watches() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    const WATCHES: usize = 9_500;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    assert!(hard > WATCHES as u64 + 200, "the limit of open files, {hard}, is too small for this test");
    let dir = tempfile::tempdir().unwrap();
    let server = ApiServer::start(dir.path(), &[]);
    let before = server.memory();
    let ask = format!("GET {CONFIG_MAPS}?watch=true&resourceVersion=1 HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut watches = Vec::with_capacity(WATCHES);
    let mut piece = [0; 1024];
    for batch in 0..WATCHES / 100 {
        for _ in 0..100 {
            let mut stream = TcpStream::connect(server.address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            stream.write_all(ask.as_bytes()).unwrap();
            watches.push(stream);
        }
        for watch in &mut watches[batch * 100..] {
            let count = watch.read(&mut piece).unwrap();
            assert!(piece[..count].starts_with(b"HTTP/1.1 200"));
        }
    }
    let each = (server.memory() - before) / WATCHES as u64;
    assert!(each < 40 << 10, "a watch takes {each} bytes");
    let (code, _) = answered(&server, &request("POST", CONFIG_MAPS, JSON, config_map("news", "{}").as_bytes()));
    assert_eq!(code, 201);
    for watch in &mut watches {
        let mut heard = Vec::new();
        while !heard.windows(6).any(|it| it == b"\"news\"") {
            let count = watch.read(&mut piece).unwrap();
            assert!(count > 0, "the watch ended");
            heard.extend_from_slice(&piece[..count]);
        }
    }
}
