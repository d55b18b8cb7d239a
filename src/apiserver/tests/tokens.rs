//! Tokens of service accounts.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::tokens::{Account, Named, Term};
use super::{Fixture, PODS, serve, start, start_with};
use crate::object::resource::{SECRET, SERVICE_ACCOUNT};
use crate::supervise::Supervisor;
use crate::tokens::legacy;

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const ISSUER: &str = "https://kubernetes.default.svc";

async fn request(it: &Fixture, account: &str, spec: Value) -> super::Answered {
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    it.create(&format!("{ACCOUNTS}/{account}/token"), request).await
}

/// A token, and its claims.
async fn token(it: &Fixture, account: &str, spec: Value) -> (String, Value) {
    let answer = request(it, account, spec).await.ok();
    let token = answer["status"]["token"].as_str().unwrap().to_owned();
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    (token, serde_json::from_slice(&claims).unwrap())
}

async fn review(it: &Fixture, token: &str, audiences: &[&str]) -> Value {
    let spec = json!({"token": token, "audiences": audiences});
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec});
    it.create("/apis/authentication.k8s.io/v1/tokenreviews", review).await.ok()["status"].take()
}

async fn account(it: &Fixture, name: &str) -> String {
    let made = it.create(ACCOUNTS, json!({"metadata": {"name": name}})).await.ok();
    made["metadata"]["uid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_says_whose_it_is() {
    let it = start().await;
    let uid = account(&it, "me").await;
    let answer = request(&it, "me", json!({})).await.ok();
    assert_eq!((&answer["spec"]["audiences"], &answer["spec"]["expirationSeconds"]), (&json!([ISSUER]), &json!(3600)));
    let (token, claims) = token(&it, "me", json!({})).await;
    assert_eq!(
        (&claims["iss"], &claims["aud"], &claims["sub"]),
        (&json!(ISSUER), &json!([ISSUER]), &json!("system:serviceaccount:default:me"))
    );
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
    assert_eq!(claims["kubernetes.io"], json!({"namespace": "default", "serviceaccount": {"name": "me", "uid": uid}}));
    let status = review(&it, &token, &[]).await;
    assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!([ISSUER])));
    assert_eq!((&status["user"]["username"], &status["user"]["uid"]), (&json!("system:serviceaccount:default:me"), &json!(uid)));
    let id = format!("JTI={}", claims["jti"].as_str().unwrap());
    assert_eq!(status["user"]["extra"], json!({"authentication.kubernetes.io/credential-id": [id]}));
    it.stop().await;
}

#[tokio::test]
async fn tokens_that_are_not_given_out() {
    let it = start().await;
    account(&it, "me").await;
    let seconds = |seconds: i64| json!({"expirationSeconds": seconds});
    let bound = |kind: &str, name: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name}});
    let invalid = "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value:";
    for (spec, expected) in [
        (seconds(599), format!("{invalid} 599: may not specify a duration less than 10 minutes")),
        (seconds(1 << 33), format!("{invalid} 8589934592: may not specify a duration larger than 2^32 seconds")),
        (bound("Pod", "p"), "pods \"p\" not found".to_owned()),
        (bound("ConfigMap", "p"), "cannot bind token to object of type /v1, Kind=ConfigMap".to_owned()),
    ] {
        assert_eq!(request(&it, "me", spec).await.failed().2, expected);
    }
    assert_eq!(request(&it, "nobody", json!({})).await.failed().2, "serviceaccounts \"nobody\" not found");
    let other = it.create(&format!("{ACCOUNTS}/me/token"), json!({"metadata": {"name": "x"}})).await.failed();
    assert!(other.2.ends_with("metadata.name: Invalid value: \"x\": must match the service account name if specified"), "{}", other.2);
    let mut pod = super::pod("p");
    pod["spec"]["serviceAccountName"] = "other".into();
    it.create(PODS, pod).await.ok();
    assert!(request(&it, "me", bound("Pod", "p")).await.failed().2.contains("to pod running with different serviceaccount name"));
    it.stop().await;
}

#[tokio::test]
async fn a_token_ends_with_what_it_is_bound_to() {
    let it = start().await;
    account(&it, "me").await;
    let mut pod = super::pod("p");
    pod["spec"]["serviceAccountName"] = "me".into();
    let made = it.create(PODS, pod.clone()).await.ok();
    let bound = json!({"expirationSeconds": 3607, "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p"}});
    let (token, claims) = token(&it, "me", bound.clone()).await;
    assert_eq!(claims["kubernetes.io"]["pod"]["uid"], made["metadata"]["uid"]);
    // Tokens for kubelets last longer than requested.
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 365 * 24 * 3600);
    assert_eq!(claims["kubernetes.io"]["warnafter"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3607);
    let status = review(&it, &token, &[]).await;
    assert_eq!(status["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]));
    let mut wrong = bound;
    wrong["boundObjectRef"]["uid"] = "123".into();
    let conflict = request(&it, "me", wrong).await.failed();
    assert!(
        conflict.2.starts_with("Operation cannot be fulfilled on Pod \"p\": the UID in the bound object reference (123)"),
        "{}",
        conflict.2
    );
    it.delete(&format!("{PODS}/p"), Value::Null).await.ok();
    let gone = json!({"user": {}, "error": "[invalid bearer token, service account token has been invalidated]"});
    assert_eq!(review(&it, &token, &[]).await, gone);
    it.create(PODS, pod).await.ok();
    assert!(review(&it, &token, &[]).await["error"].as_str().unwrap().contains("does not match service account pod ref claim"));

    it.create("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await.ok();
    let bound = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Node", "name": "n"}});
    let (token, _) = self::token(&it, "me", bound).await;
    assert_eq!(review(&it, &token, &[]).await["user"]["extra"]["authentication.kubernetes.io/node-name"], json!(["n"]));
    it.delete("/api/v1/nodes/n", Value::Null).await.ok();
    assert_eq!(review(&it, &token, &[]).await, gone);
    it.stop().await;
}

#[tokio::test]
async fn tokens_that_are_worth_nothing() {
    let it = start().await;
    let uid = account(&it, "me").await;
    let (good, _) = token(&it, "me", json!({"audiences": ["a", "b"]})).await;
    assert_eq!(review(&it, &good, &["b", "c"]).await["audiences"], json!(["b"]));
    let error = async |token: &str, audiences: &[&str]| {
        let status = review(&it, token, audiences).await;
        assert_eq!((&status["authenticated"], &status["user"]), (&Value::Null, &json!({})));
        status["error"].as_str().unwrap().to_owned()
    };
    let elsewhere = format!("[invalid bearer token, token audiences [\"a\" \"b\"] is invalid for the target audiences [\"{ISSUER}\"]]");
    assert_eq!(error(&good, &[]).await, elsewhere);
    assert_eq!(error("abc", &[]).await, "invalid bearer token");
    let (whole, signature) = good.rsplit_once('.').unwrap();
    for forged in [format!("{good}x"), format!("{whole}.{}", signature.chars().rev().collect::<String>())] {
        assert_eq!(error(&forged, &["a"]).await, "[invalid bearer token, go-jose/go-jose: error in cryptographic primitive]");
    }

    let given_out = it.server.server.tokens.get().unwrap();
    let mut whose = Account {
        namespace: "default".to_owned(),
        account: Named { name: "me".to_owned(), uid },
        pod: None,
        secret: None,
        node: None,
        id: String::new(),
    };
    let issue =
        |whose: &Account, at: Timestamp| given_out.issue(whose, &["a".to_owned()], Term { seconds: 600, warn_after: None }, at).unwrap();
    let old = issue(&whose, Timestamp::now() - SignedDuration::from_hours(1));
    assert_eq!(error(&old, &["a"]).await, "[invalid bearer token, service account token has expired]");
    let early = issue(&whose, Timestamp::now() + SignedDuration::from_hours(1));
    assert_eq!(error(&early, &["a"]).await, "[invalid bearer token, service account token is not valid yet]");
    whose.account.uid = "before".to_owned();
    let other = error(&issue(&whose, Timestamp::now()), &["a"]).await;
    assert!(
        other.starts_with("[invalid bearer token, service account UID (") && other.ends_with("does not match claim (before)]"),
        "{other}"
    );
    it.delete(&format!("{ACCOUNTS}/me"), Value::Null).await.ok();
    assert_eq!(error(&good, &["a"]).await, "[invalid bearer token, serviceaccounts \"me\" not found]");
    it.stop().await;
}

#[tokio::test]
async fn servers_of_one_store_share_a_key() {
    let it = start().await;
    account(&it, "me").await;
    let supervisor = Supervisor::default();
    let server = serve(it.store.clone(), &supervisor, |_| ()).await;
    let other = Fixture { server, store: it.store.clone(), supervisor, _dir: tempfile::tempdir().unwrap() };
    let (token, _) = token(&it, "me", json!({})).await;
    assert_eq!(review(&other, &token, &[]).await["authenticated"], true);
    let keys = it.get("/openid/v1/jwks").await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    assert_eq!(keys.json, other.get("/openid/v1/jwks").await.json);
    let configuration = it.get("/.well-known/openid-configuration").await.ok();
    assert_eq!(configuration["issuer"], ISSUER);
    assert_eq!(configuration["id_token_signing_alg_values_supported"], json!(["ES256"]));
    other.stop().await;
    it.stop().await;
}

#[tokio::test]
async fn no_token_lasts_longer_than_it_may() {
    let it = start_with(|config| config.tokens.longest = Some(std::time::Duration::from_secs(3600))).await;
    account(&it, "me").await;
    let answer = request(&it, "me", json!({"expirationSeconds": 7200})).await;
    assert_eq!(answer.headers["warning"], "299 - \"requested expiration of 7200 seconds shortened to 3600 seconds\"");
    assert_eq!(answer.ok()["spec"]["expirationSeconds"], 3600);
    it.stop().await;
}

#[tokio::test]
async fn a_token_in_a_secret_is_good_as_long_as_it_is_there() {
    const SECRETS: &str = "/api/v1/namespaces/default/secrets";
    let it = start().await;
    account(&it, "me").await;
    let metadata = json!({"name": "s", "annotations": {"kubernetes.io/service-account.name": "me"}});
    it.create(SECRETS, json!({"metadata": metadata, "type": "kubernetes.io/service-account-token"})).await.ok();
    let cache = it.server.cache();
    let [whose, secret] = [(&SERVICE_ACCOUNT, "me"), (&SECRET, "s")].map(|(kind, name)| cache.get(kind, "default", name).unwrap());
    let token = legacy::issue(&it.server.signing_key().unwrap(), &whose, &secret).unwrap();
    let path = format!("{SECRETS}/s");
    let put = |token: &str| json!({"data": {"token": base64::engine::general_purpose::STANDARD.encode(token)}});
    let error = async || review(&it, &token, &[]).await["error"].as_str().unwrap().to_owned();
    assert_eq!(error().await, "[invalid bearer token, Token does not match server's copy]");
    it.patch(&path, put(&token)).await.ok();
    let status = review(&it, &token, &[]).await;
    assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!([ISSUER])));
    assert_eq!((&status["user"]["uid"], &status["user"]["extra"]), (&json!(&*whose.meta().uid), &Value::Null));
    it.patch(&path, json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": "2026-01-01"}}})).await.ok();
    assert!(error().await.contains("has been marked invalid"));
    it.delete(&path, Value::Null).await.ok();
    assert_eq!(error().await, "[invalid bearer token, Token has been invalidated]");
    it.stop().await;
}
