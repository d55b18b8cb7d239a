//! Responses of Kubernetes 1.33 to all kinds of requests, recorded from it and compared with km's: each file in `cases/` is a list of cases
//! in the format of [`script`]. `KM_CORPUS_KUBECONFIG=FILE` records them again from the cluster of a kubeconfig, which needs an API server
//! without controllers and with the same address range; notes on differences are kept.

mod script;
mod shown;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use self::script::{Case, Step};
use self::shown::{Reply, Seen};
use crate::support::apiserver::ApiServer;
use crate::support::process::Process;
use crate::support::{free_port, kubectl, source, wait_for};

/// Names the kubeconfig of a cluster to record from.
const RECORD: &str = "KM_CORPUS_KUBECONFIG";

/// A server to ask.
struct Server {
    url: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Server {
    fn at(port: u16) -> Self {
        Self { url: format!("http://127.0.0.1:{port}"), client: Client::builder(TokioExecutor::new()).build_http() }
    }

    async fn ask(&self, step: &Step, namespace: &str) -> Reply {
        let uri = format!("{}{}", self.url, step.path.replace("{ns}", namespace));
        let mut request = http::Request::builder().method(step.method.as_str()).uri(uri).header("user-agent", "corpus/1");
        for (name, value) in step.request_heads() {
            request = request.header(name, value);
        }
        let body = step.body.as_deref().unwrap_or_default().replace("{ns}", namespace);
        let response = self.client.request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let heads = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap_or_default().to_owned()));
        let body = body.collect().await.unwrap().to_bytes();
        Reply { code: head.status.as_u16(), heads: heads.collect(), body: String::from_utf8_lossy(&body).into_owned() }
    }

    /// Runs a case in a namespace of its own, and returns the responses.
    async fn play(&self, case: &Case) -> Vec<script::Answer> {
        let namespace = format!("c{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        for (path, body) in [
            ("/api/v1/namespaces", r#"{"metadata":{"name":"{ns}"}}"#),
            ("/api/v1/namespaces/{ns}/serviceaccounts", r#"{"metadata":{"name":"default"}}"#),
        ] {
            let reply = self.ask(&Step::create(path, body), &namespace).await;
            assert!(reply.code == 201, "{path}: {}", reply.body);
        }
        let (mut seen, mut answers) = (Seen::default(), Vec::new());
        for step in &case.steps {
            answers.push(seen.show(self.ask(step, &namespace).await, &namespace));
        }
        answers
    }
}

/// The files, each with its name.
fn files() -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(source("tests/it/corpus/cases")).unwrap().map(|it| it.unwrap().path());
    let mut files: Vec<_> = entries.map(|it| (it.file_stem().unwrap().to_str().unwrap().to_owned(), it)).collect();
    files.sort();
    files
}

fn read(path: &PathBuf) -> Vec<Case> {
    script::parse(&std::fs::read_to_string(path).unwrap()).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()))
}

/// Describes how a response differs from the recorded one.
fn problems(step: &Step, answer: &script::Answer) -> Vec<String> {
    let found = shown::differences(&step.answer, answer);
    let is_known = |path: &str| step.differences.iter().any(|it| path.starts_with(&it.path));
    let unknown = found
        .iter()
        .filter(|(path, ..)| !is_known(path))
        .map(|(path, kubernetes, km)| format!("{path}\n    Kubernetes: {kubernetes}\n    km:         {km}"));
    let is_there = |known: &str| found.iter().any(|(path, ..)| path.starts_with(known));
    let gone = step
        .differences
        .iter()
        .filter(|it| !is_there(&it.path))
        .map(|it| format!("{} is that of Kubernetes now, although {:?}: take the line out", it.path, it.reason));
    unknown.chain(gone).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn km_answers_as_kubernetes_does() {
    if let Some(kubeconfig) = std::env::var_os(RECORD) {
        return record(&kubeconfig).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let flags = [format!("--admission-control={}", km::apiserver::DEFAULT_PLUGINS), "--allow-privileged".to_owned()];
    let api = ApiServer::start(dir.path(), &flags);
    let server = Server::at(api.address.port());
    let played = files().into_iter().map(|(name, path)| {
        let server = &server;
        async move {
            let mut wrong = Vec::new();
            for case in read(&path) {
                let answers = server.play(&case).await;
                for (at, (step, answer)) in case.steps.iter().zip(&answers).enumerate() {
                    for problem in problems(step, answer) {
                        wrong.push(format!("{name}.txt: {}, {}. {} {}\n  {problem}", case.title, at + 1, step.method, step.path));
                    }
                }
            }
            wrong
        }
    });
    let wrong: Vec<String> = futures_util::future::join_all(played).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{} answers are not those of Kubernetes\n\n{}", wrong.len(), wrong.join("\n\n"));
}

/// Records the responses of a cluster.
async fn record(kubeconfig: &std::ffi::OsStr) {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut proxy = Command::new(kubectl());
    proxy.arg("proxy").arg(format!("--port={port}")).arg("--kubeconfig").arg(kubeconfig).arg("--reject-paths=^$");
    let _proxy = Process::start("proxy", &mut proxy, &dir.path().join("proxy.log"));
    wait_for("the proxy", Duration::from_secs(10), || std::net::TcpStream::connect(("127.0.0.1", port)).map_err(|it| it.to_string()));
    let server = Server::at(port);
    for (_, path) in files() {
        let mut cases = read(&path);
        for case in &mut cases {
            let answers = server.play(case).await;
            case.steps.iter_mut().zip(answers).for_each(|(step, answer)| step.answer = answer);
        }
        std::fs::write(&path, script::print(&cases)).unwrap();
    }
}

#[test]
fn differences_have_to_be_where_they_are_said_to_be() {
    let case = |differences: &str| {
        let text = format!("== a\nGET /a\n= 200\n< {{\"a\":1,\"b\":[{{\"c\":2}}]}}\n{differences}");
        script::parse(&text).unwrap().remove(0).steps.remove(0)
    };
    let answer = script::Answer { code: 200, heads: Vec::new(), body: r#"{"a":1,"b":[{"c":3}]}"#.to_owned() };
    let found = |differences: &str| problems(&case(differences), &answer);
    assert_eq!(found(""), ["b[0].c\n    Kubernetes: 2\n    km:         3"]);
    for known in ["~ b: why\n", "~ b[0].c: why\n", "~ : why\n"] {
        assert_eq!(found(known), Vec::<String>::new(), "{known}");
    }
    assert_eq!(found("~ b: why\n~ a: once\n"), ["a is that of Kubernetes now, although \"once\": take the line out"]);
    let same = script::Answer { body: case("").answer.body, ..answer.clone() };
    assert_eq!(problems(&case("~ : why\n"), &same).len(), 1);
}
