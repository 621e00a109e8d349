//! What is fed. A target is a function of bytes; `Err` says which property did not hold.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lxdrunner::config::{AppKey, Config, Credential, CredentialKind, GitHubConfig};
use lxdrunner::github::{GitHub, MAX_ANSWER, Purpose};
use lxdrunner::http1::{Event, Parser};
use lxdrunner::lxd::{Exec, Image, Lxd, NewInstance, Project, Source};
use lxdrunner::model::{ConfigMap, Devices, InstanceType, JobId, RunnerId, Scope, Secret};
use lxdrunner::webhook::event;
use lxdrunner::websocket::Reader;

use crate::door;

/// Feeds a target; `Err` says which property did not hold.
pub type Run = Box<dyn FnMut(&[u8]) -> Result<(), String>>;

/// One thing that takes bytes from outside.
pub struct Target {
    /// Also the name of its corpus.
    pub name: &'static str,
    /// Bytes that it may take however short its input is: its caps. What grows to a cap by doubling holds three times
    /// as much for a moment.
    pub memory: usize,
    /// Feeds it.
    pub run: Run,
}

pub fn all() -> Vec<Target> {
    let target = |name, run: Run| Target { name, memory: 8 << 20, run };
    vec![
        target("http1_response", Box::new(|input| split_anywhere(input, || Parser::response_to("GET")))),
        target("http1_request", Box::new(|input| split_anywhere(input, Parser::request))),
        target("websocket", Box::new(websocket)),
        target("webhook", Box::new(webhook)),
        target("config", config()),
        // An answer comes packed: a few bytes can be a long one.
        Target { memory: 3 * MAX_ANSWER + (4 << 20), ..target("github", github()) },
        target("lxd", lxd()),
        target("door", door::plain()),
        target("door_proxied", door::proxied()),
        target("door_tls", door::encrypted()),
        target("control", door::control()),
    ]
}

/// What a parser makes of `input` that comes in pieces of `size` bytes: its events as text, bodies joined.
fn parsed(input: &[u8], mut parser: Parser, size: usize) -> String {
    let (mut told, mut body) = (String::new(), Vec::new());
    let mut buffer: &[u8] = &[];
    let mut pieces = input.chunks(size.max(1));
    loop {
        match parser.step(buffer) {
            Ok((used, event)) => {
                buffer = &buffer[used..];
                match event {
                    Event::NeedInput => match pieces.next() {
                        Some(piece) => buffer = piece,
                        None => return format!("{told} body={body:?} end={:?}", parser.end_of_input()),
                    },
                    Event::Head(head) => told.push_str(&format!("{head:?} ")),
                    Event::Body(piece) => body.extend_from_slice(piece),
                    Event::End => return format!("{told} body={body:?} complete"),
                }
            }
            Err(error) => return format!("{told} body={body:?} error={error:?}"),
        }
    }
}

/// However the bytes are cut, the parser must find the same.
fn split_anywhere(input: &[u8], parser: impl Fn() -> Parser) -> Result<(), String> {
    let whole = parsed(input, parser(), input.len());
    for size in [1, 7] {
        let pieces = parsed(input, parser(), size);
        if pieces != whole {
            return Err(format!("whole: {whole:.500}\nin pieces of {size}: {pieces:.500}"));
        }
    }
    Ok(())
}

fn websocket(input: &[u8]) -> Result<(), String> {
    let messages = |size: usize| {
        let mut reader = Reader::default();
        let mut told = Vec::new();
        for piece in input.chunks(size.max(1)) {
            reader.feed(piece);
            loop {
                match reader.take() {
                    Ok(Some(message)) => told.push(format!("{message:?}")),
                    Ok(None) => break,
                    Err(error) => {
                        told.push(format!("{error:?}"));
                        return told;
                    }
                }
            }
        }
        told
    };
    let whole = messages(input.len());
    if messages(1) != whole { Err(format!("whole and in single bytes differ: {whole:.500?}")) } else { Ok(()) }
}

/// The first line is the event, the rest the body.
fn webhook(input: &[u8]) -> Result<(), String> {
    let (kind, body) = first_line(input);
    let secret = Secret::new("secret");
    for header in [None, Some(kind.as_str())] {
        if event::verify(&secret, body, header).is_ok() {
            return Err("a signature was believed".to_owned());
        }
    }
    escaped(&format!("{:?}", event::parse(&kind, body).map_err(|error| error.to_string())))
}

/// What is read of `answer`, or why nothing is, as it is shown to people.
fn read<T: Debug>(answer: Result<T, impl Display>) -> String {
    format!("{:?}", answer.map_err(|error| error.to_string()))
}

/// Text from outside is escaped when it is read: then the debug form of a string has no escapes but of quotes and
/// backslashes.
fn escaped(debug: &str) -> Result<(), String> {
    let mut rest = debug.chars();
    while let Some(c) = rest.next() {
        if c == '\\' && !matches!(rest.next(), Some('\\' | '"' | '\'')) {
            return Err(format!("a control character is left: {debug:.500}"));
        }
    }
    Ok(())
}

/// Errors of a config file that are told each.
const MOST_TOLD: usize = 100;

fn config() -> Run {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-config-{}.yml", std::process::id()));
    Box::new(move |input| {
        std::fs::write(&file, input).map_err(|error| error.to_string())?;
        let loaded = Config::load(&file);
        drop(std::fs::remove_file(&file));
        let Err(errors) = loaded else { return Ok(()) };
        let told = errors.to_string();
        if told.trim().is_empty() {
            return Err("a config was refused without a word".to_owned());
        }
        let lines = errors.count().min(MOST_TOLD + 1);
        if told.split('\n').count() != lines || told.contains(|c: char| c.is_control() && c != '\n') {
            return Err(format!("{lines} errors are not so many lines: {told:.500?}"));
        }
        Ok(())
    })
}

/// `CALL STATUS`, a line end, and the body; or `raw CALL`, a line end, and the whole answer.
fn first_line(input: &[u8]) -> (String, &[u8]) {
    let end = input.iter().position(|b| *b == b'\n').unwrap_or(input.len());
    let line = String::from_utf8_lossy(&input[..end]).trim().to_owned();
    (line, input.get(end + 1..).unwrap_or_default())
}

/// The call to make, and the bytes of its answer.
fn call_and_answer(input: &[u8]) -> (String, Vec<u8>) {
    let (line, body) = first_line(input);
    let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
    if word == "raw" {
        return (rest.to_owned(), body.to_vec());
    }
    let status: u16 = rest.trim().parse().unwrap_or(200);
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nETag: \"x\"\r\nConnection: close\r\n\r\n",
        body.len()
    );
    (word.to_owned(), [head.as_bytes(), body].concat())
}

/// Reads a request's head, sends what is in `answer`, and closes.
fn serve(mut stream: impl Read + Write, answer: &Mutex<Vec<u8>>) {
    let mut head = Vec::new();
    let mut block = [0; 4096];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut block) {
            Ok(count @ 1..) => head.extend_from_slice(&block[..count]),
            _ => return,
        }
    }
    let bytes = answer.lock().unwrap().clone();
    let _ = stream.write_all(&bytes);
}

/// GitHub's answers, over a real connection.
fn github() -> Run {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let answer: Arc<Mutex<Vec<u8>>> = Arc::default();
    let served = Arc::clone(&answer);
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| serve(stream, &served)));
    let scope: Scope = "org:acme".parse().unwrap();
    let repo = "acme/app".parse().unwrap();
    let key = AppKey::from_pem(include_bytes!("../fixtures/keys/app.pem")).unwrap();
    let app = GitHubConfig {
        api: base.clone(),
        api_budget: 20,
        credentials: vec![Credential { name: "app".to_owned(), kind: CredentialKind::App { id: 7, key } }],
        assigned: BTreeMap::new(),
        authorities: Vec::new(),
    };
    Box::new(move |input| {
        let (call, bytes) = call_and_answer(input);
        *answer.lock().unwrap() = bytes;
        let deadline = Duration::from_secs(5);
        let github = GitHub::new(&base, Secret::new("hunter2-token")).with_deadline(deadline);
        // It asks for its installation, for a token there, and then; each answer is the same.
        let as_app = || GitHub::of_config(&app).with_deadline(deadline);
        let told = match call.as_str() {
            "runners" => read(github.runners(&scope)),
            "jobs" => read(github.open_jobs(&repo)),
            "job" => read(github.job(&repo, JobId(7))),
            "repo" => read(github.repo(&repo)),
            "repos" => read(github.org_repos("acme")),
            "downloads" => read(github.runner_downloads(&scope)),
            "group" => read(github.runner_group(&scope, "builders")),
            "user" => read(github.identity(0)),
            "delete" => read(github.delete_runner(&scope, RunnerId(7))),
            "token" => read(github.registration_token(&scope)),
            "orgs" => read(github.orgs()),
            "runner_by_name" => read(github.runner_by_name(&scope, "lxdrunner-7-1")),
            "run" => read(github.run_origin(&repo, 7, true)),
            "runner_end" => read(github.runner_end(&scope, "2.330.0")),
            "hooks" => read(github.hooks(&scope)),
            "deliveries" => read(github.deliveries(&scope, 7, Purpose::List, |all| all.len() < 1000)),
            "meta" => read(github.hook_networks()),
            "app" => read(as_app().runners(&scope)),
            _ => read(github.generate_jit_config(&scope, "lxdrunner-7-1", 1, &["self-hosted".to_owned()])),
        };
        match told.contains("hunter2") {
            true => Err(format!("the credential is told: {told}")),
            false => escaped(&told),
        }
    })
}

/// A path that nothing else in this process or on this machine has.
pub fn scratch() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("lxdrunner-fuzz-{}-{number}", std::process::id()))
}

/// LXD's answers, over a real socket.
fn lxd() -> Run {
    let socket = scratch();
    let listener = UnixListener::bind(&socket).unwrap();
    let answer: Arc<Mutex<Vec<u8>>> = Arc::default();
    let served = Arc::clone(&answer);
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| serve(stream, &served)));
    let lxd = Lxd::new(&socket);
    let guard = RemovedWithUs(socket);
    let exec = Exec { command: vec!["true".to_owned()], environment: ConfigMap::new(), record: true };
    let new = NewInstance {
        name: "x-7-1".to_owned(),
        kind: InstanceType::Container,
        source: Source::Alias("dev".to_owned()),
        profiles: vec!["default".to_owned()],
        config: ConfigMap::new(),
        devices: Devices::new(),
        ephemeral: true,
    };
    let short = Duration::from_millis(20);
    Box::new(move |input| {
        let _ = &guard;
        let (call, bytes) = call_and_answer(input);
        *answer.lock().unwrap() = bytes;
        let told = match call.as_str() {
            "instances" => read(lxd.instances("default", "x")),
            "instance" => read(lxd.instance("default", "x-7-1").map(|found| found.map(|(instance, _)| instance))),
            "create" => read(lxd.create("default", "", &new).and_then(|operation| lxd.wait(&operation, short))),
            // What a command prints, and what is in a file, is escaped when its credentials are masked.
            "exec" => read(lxd.exec("default", "x-7-1", &exec, short).map(|done| done.code)),
            "pull" => read(lxd.pull_file_tail("default", "x-7-1", "/x", 1000, Duration::from_secs(5)).map(drop)),
            "patch" => read(lxd.patch_config("default", "x-7-1", &ConfigMap::new(), Some("e"))),
            "state" => read(lxd.processes("default", "x-7-1")),
            "images" => read(lxd.images("default").map(|images| images.into_iter().map(plain).collect::<Vec<_>>())),
            "image" => read(lxd.image("default", "abc").map(|image| image.map(plain))),
            // Other configs are only compared.
            "profile" => read(lxd.profile("default", "default").map(drop)),
            "network" => read(lxd.network("default", "br0").map(|network| network.map(|network| network.kind))),
            "projects" => {
                let names = |all: Vec<Project>| all.into_iter().map(|project| project.name).collect::<Vec<_>>();
                read(lxd.projects().map(names))
            }
            "pool" => read(lxd.storage_pool("pool")),
            "alias" => read(lxd.image_alias("default", "dev")),
            "directory" => read(lxd.list_directory("default", "x-7-1", "/x", short)),
            "members" => read(lxd.cluster_members()),
            "events" => {
                let deadline = Instant::now() + Duration::from_secs(1);
                let mut told = Vec::new();
                if let Ok(mut events) = lxd.events() {
                    while told.len() < 100 && Instant::now() < deadline {
                        match events.next_end() {
                            Ok(ended) => told.push(format!("{ended:?}")),
                            Err(error) => {
                                told.push(format!("{:?}", error.to_string()));
                                break;
                            }
                        }
                    }
                }
                told.concat()
            }
            _ => read(lxd.server().map(|server| (server.product, server.version, server.architectures))),
        };
        escaped(&told)
    })
}

/// What is shown of an image.
fn plain(image: Image) -> (String, String, String) {
    (image.fingerprint, image.kind, image.architecture)
}

/// A file or a folder.
pub struct RemovedWithUs(pub PathBuf);

impl Drop for RemovedWithUs {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0).or_else(|_| std::fs::remove_dir_all(&self.0));
    }
}
