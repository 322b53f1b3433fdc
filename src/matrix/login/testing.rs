//! What the tests of the log-in stand on: a homeserver that a test plays, and a configuration for it.

use std::path::Path;

use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
};

use crate::config::Config;

/// A homeserver without an answer, and a configuration in `folder` that names it. Its address has a path.
pub(super) async fn homeserver(folder: &Path) -> (TcpListener, Config) {
    let homeserver = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = homeserver.local_addr().unwrap();
    let file = folder.join("config.yaml");
    let text = format!(
        "homeserver: {{ url: 'http://{address}/base/', server_name: example.org }}\nadmin_room: '#a:example.org'\n\
         projects: {{ website: {{ directory: . }} }}\n"
    );
    std::fs::write(&file, text).unwrap();
    (homeserver, Config::load(&file).unwrap())
}

/// Reads until the text is there.
pub(super) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(end) {
        assert_ne!(stream.read_buf(&mut text).await.unwrap(), 0, "cut off");
    }
    String::from_utf8(text).unwrap()
}
