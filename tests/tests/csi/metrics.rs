//! Calls are counted on the metrics page, by method and code.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use proto::csi::v1::NodeGetInfoRequest;
use system_tests::daemon::Scene;

use crate::ground::Node;

fn page(socket: &Path) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn calls_are_counted_by_method_and_code() {
    let scene = Scene::new();
    let (socket, settings) = (scene.path("metrics.sock"), scene.path("volplane.toml"));
    fs::write(&settings, format!("[metrics]\nlisten = \"unix:{}\"\n", socket.display())).unwrap();
    let node = Node::start_with(&scene, &["--config", settings.to_str().unwrap()]);
    let mut client = node.kubelet.node();
    for _ in 0..3 {
        node.kubelet.runtime.block_on(client.node_get_info(NodeGetInfoRequest {})).unwrap();
    }
    let page = page(&socket);
    let labels = "{driver=\"cvmfs\",method=\"NodeGetInfo\",code=\"OK\"}";
    assert!(page.contains(&format!("volplane_csi_calls_total{labels} 3\n")), "{page}");
    assert!(page.contains("volplane_csi_call_seconds_total{"), "{page}");
}
