//! A restart of the daemon refuses no delivery where the socket is held for it.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::door::*;
use super::held::{activate, end};
use super::support::Scratch;

#[test]
fn restarts_refuse_no_delivery() {
    let scratch = Scratch::new();
    let (binary, config) = (env!("CARGO_BIN_EXE_lxdrunner"), scratch.0.join("config.yml"));
    let text = format!(
        "pat: x\nhooksecret: {SECRET}\ngithub_api: http://127.0.0.1:9\ntargets: [{{org: acme}}]\nsocket: {0}/none\n\
         cache_home: {0}/cache\nrunnermap:\n  - {{name: one, labels: [self-hosted], image: x}}\n",
        scratch.0.display()
    );
    std::fs::write(&config, text).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (over, accepted) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut n = 0;
            while !over.load(Ordering::SeqCst) {
                n += 1;
                let answer = ask(address, &delivery(&n.to_string(), "Connection: close\r\n"));
                assert!(matches!(&answer, Ok(answer) if answer.starts_with("HTTP/1.1 202 ")), "{answer:?}");
                accepted.fetch_add(1, Ordering::SeqCst);
            }
        });
        for _ in 0..5 {
            let before = accepted.load(Ordering::SeqCst);
            let mut daemon = activate(binary, &config, &listener);
            while accepted.load(Ordering::SeqCst) < before + 20 {
                assert!(!sender.is_finished() && daemon.try_wait().unwrap().is_none());
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            end(daemon);
        }
        // The last delivery may wait for it.
        let mut last = activate(binary, &config, &listener);
        over.store(true, Ordering::SeqCst);
        sender.join().unwrap();
        last.kill().unwrap();
        last.wait().unwrap();
    });
}

fn ask(address: std::net::SocketAddr, request: &[u8]) -> std::io::Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(super::support::PATIENCE))?;
    stream.write_all(request)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
