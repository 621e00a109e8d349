//! A stand-in for an image server (simplestreams) on this machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use serde_json::json;
use tiny_http::{Response, Server};

/// Serves the lists that it was made with until it is dropped.
pub struct ImageServer {
    server: Arc<Server>,
    asked: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl ImageServer {
    /// Images as `(aliases, architecture, kinds of files)`.
    pub fn start(images: &[(&str, &str, &[&str])]) -> ImageServer {
        let image = |(n, (aliases, arch, ftypes)): (usize, &(&str, &str, &[&str]))| {
            let file = |ftype: &&str| ((*ftype).to_owned(), json!({"ftype": ftype, "size": 1, "path": "images/x"}));
            let items: serde_json::Map<_, _> = ftypes.iter().map(file).collect();
            let versions = json!({"20261101_07:42": {"items": items, "label": "release"}});
            (format!("image-{n}"), json!({"aliases": aliases, "arch": arch, "os": "x", "versions": versions}))
        };
        let products: serde_json::Map<_, _> = images.iter().enumerate().map(image).collect();
        let names: Vec<_> = products.keys().cloned().collect();
        let index = json!({"format": "index:1.0", "index": {
            "images": {"datatype": "image-downloads", "format": "products:1.0", "path": "streams/v1/images.json",
                "products": names},
            // Ubuntu's server lists what clouds have, too.
            "aws": {"datatype": "image-ids", "path": "streams/v1/aws.json", "products": ["x"]}}});
        let list = json!({"content_id": "images", "datatype": "image-downloads", "format": "products:1.0",
            "products": products});
        let server = Arc::new(Server::http("127.0.0.1:0").unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let (serving, counted) = (Arc::clone(&server), Arc::clone(&asked));
        let thread = std::thread::spawn(move || {
            for request in serving.incoming_requests() {
                counted.fetch_add(1, Ordering::SeqCst);
                let answer = match request.url() {
                    "/streams/v1/index.json" => Response::from_string(index.to_string()),
                    "/streams/v1/images.json" => Response::from_string(list.to_string()),
                    _ => Response::from_string("nothing here").with_status_code(404),
                };
                let _ = request.respond(answer);
            }
        });
        ImageServer { server, asked, thread: Some(thread) }
    }

    pub fn address(&self) -> String {
        format!("http://{}", self.server.server_addr())
    }

    /// How many requests came.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for ImageServer {
    fn drop(&mut self) {
        self.server.unblock();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
