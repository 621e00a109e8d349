//! What lies between us and GitHub: an organisation's own authority, and a proxy from the environment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use lxdrunner::config::{Credential, CredentialKind, GitHubConfig};
use lxdrunner::github::{ErrorKind, GitHub, Identity};
use lxdrunner::model::Secret;
use standin::github::GitHubStandin;
use support::Scratch;

/// Reads up to the end of a request's head.
fn head(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

/// A server with a certificate of an authority of its own: its address, and the authority.
fn own_authority() -> (SocketAddr, rustls_pki_types::CertificateDer<'static>) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(params, key);
    let own = rcgen::KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().signed_by(&own, &issuer).unwrap();
    let private = rustls_pki_types::PrivateKeyDer::try_from(own.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], private).unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(session, stream);
            // Who does not believe the certificate goes away here.
            if head(&mut stream).starts_with("GET /user ") {
                let body = r#"{"login":"octocat"}"#;
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    });
    (address, authority.der().clone())
}

#[test]
fn an_own_authority_is_believed_where_it_is_named() {
    let (address, authority) = own_authority();
    let github = |authorities| {
        GitHub::of_config(&GitHubConfig {
            api: format!("https://{address}"),
            api_budget: 20,
            credentials: vec![Credential {
                name: "one".to_owned(),
                kind: CredentialKind::Token(Secret::new("a-token")),
            }],
            assigned: Default::default(),
            authorities,
        })
    };
    let error = github(Vec::new()).identity(0).unwrap_err();
    assert!(error.kind == ErrorKind::Unreachable && error.to_string().contains("ca_file"), "{error}");
    let trusting = github(vec![authority]);
    assert!(matches!(trusting.identity(0), Ok(Identity::User { login, .. }) if login == "octocat"));
    assert!(matches!(trusting.identity(0), Ok(Identity::User { login, .. }) if login == "octocat"));
    let (_, another) = own_authority();
    let error = github(vec![another]).identity(0).unwrap_err();
    assert!(error.to_string().contains("ca_file"), "{error}");
}

/// A proxy that leads every connection to `to`, and keeps the heads of what it is asked. Without `to` it wants a password.
fn proxy(to: Option<SocketAddr>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heads = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            heads.lock().unwrap().push(head(&mut client));
            let Some(to) = to else {
                let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
                client.write_all(refusal.as_bytes()).unwrap();
                continue;
            };
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
            let server = TcpStream::connect(to).unwrap();
            let (mut there, mut back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let mut server = server;
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut there, &mut server);
                let _ = server.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut back, &mut client);
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    (address, asked)
}

/// What `lxdrunner check -v` says of GitHub at `ghe.test`, which only a proxy can find.
fn check(standin: &GitHubStandin, environment: &[(&str, String)]) -> String {
    let scratch = Scratch::new();
    let path = scratch.0.join("config.yml");
    let text = format!(
        "pat: {}\nhooksecret: a-secret-for-the-tests\ngithub_api: http://ghe.test/api/v3\nsocket: /nowhere\n\
         targets: [{{org: acme}}]\nrunnermap: [{{name: one, labels: [x], image: i, runner_arch: x64}}]\n",
        standin.token().expose()
    );
    std::fs::write(&path, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lxdrunner"));
    for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let output = command.args(["check", "-v", "-c"]).arg(&path).output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn a_proxy_of_the_environment_is_used_and_its_password_is_not_told() {
    let standin = GitHubStandin::start((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    standin.add_org("acme");
    let (address, asked) = proxy(Some(standin.address()));
    let with_password = ("HTTPS_PROXY", format!("http://user:hunter2@{address}"));
    let text = check(&standin, std::slice::from_ref(&with_password));
    assert!(text.contains("ok   GitHub at http://ghe.test/api/v3") && text.contains("ok   target org:acme"), "{text}");
    assert!(!text.contains("hunter2") && !text.contains("dXNlcjpodW50ZXIy"), "{text}");
    let first = asked.lock().unwrap().remove(0);
    assert!(first.starts_with("CONNECT ghe.test:80 ") && first.contains("dXNlcjpodW50ZXIy"), "{first}");

    let passed = asked.lock().unwrap().len();
    let text = check(&standin, &[with_password, ("NO_PROXY", "other.test,ghe.test".to_owned())]);
    assert!(text.contains("no connection"), "{text}");
    assert_eq!(asked.lock().unwrap().len(), passed, "NO_PROXY names the host");
}

#[test]
fn a_proxy_that_wants_a_password_is_told_with_the_fix() {
    let standin = GitHubStandin::start((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let (address, _) = proxy(None);
    let text = check(&standin, &[("HTTPS_PROXY", format!("http://user:hunter2@{address}"))]);
    let parts = ["407", &address.to_string(), "HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT", "NO_PROXY"];
    parts.iter().for_each(|part| assert!(text.contains(part), "{part:?} is not in {text}"));
    assert!(!text.contains("hunter2"), "{text}");
    assert!(standin.requests().is_empty());
}
