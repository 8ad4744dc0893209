//! A web server with the real fixture repositories, as a site has it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::daemon::{Scene, binary};
use crate::process::Running;
use crate::wait;

/// A running server (`volplane cvmfs serve`) with document root `www/` of the fixtures.
pub struct Site {
    server: Running,
    url: String,
}

impl Site {
    /// Serves the fixtures.
    pub fn fixtures(scene: &Scene) -> Site {
        Site::serve(scene, fixtures::public().join("www"), "site")
    }

    /// Serves a directory; `name` names its log.
    ///
    /// # Panics
    /// When the server does not come up.
    pub fn serve(scene: &Scene, root: PathBuf, name: &str) -> Site {
        let log = scene.path("log").join(name);
        let mut command = Command::new(binary());
        command.args(["cvmfs", "serve"]).arg(root).args(["--listen", "127.0.0.1:0"]);
        let mut server = Running::start(&mut command, &log);
        let url = wait::until("the web server tells its address", || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            assert!(server.ended().is_none(), "the web server ended: {text}");
            let at = text.find("http://127.0.0.1:")?;
            let address = text[at..].trim_start_matches("http://");
            let end = address.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':')?;
            Some(format!("http://{}", &address[..end]))
        });
        Site { server, url }
    }

    /// The URL of its document root, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The server URL of a fixture repository.
    pub fn repository(&self, fqrn: &str) -> String {
        format!("{}/cvmfs/{fqrn}", self.url)
    }

    /// Makes the repository known in the scene's configuration directory, with its right key.
    pub fn configure(&self, scene: &Scene, fqrn: &str) {
        // External data and the symlink variable as when the listings were taken.
        let more = format!(
            "CVMFS_EXTERNAL_URL={}/ext/{fqrn}\nCVMFS_EXTERNAL_HTTP_PROXY=DIRECT\nCVMFS_TEST_VAR=testvalue\n",
            self.url
        );
        scene.configure(fqrn, &self.repository(fqrn), &fixtures::public_key(fqrn), &more);
    }

    /// Stops answering without closing anything (SIGSTOP), as a server behind a black hole.
    pub fn freeze(&self) {
        self.server.signal("-STOP");
    }

    /// Goes on answering.
    pub fn thaw(&self) {
        self.server.signal("-CONT");
    }

    /// Ends the server; connections are refused from now on.
    pub fn kill(&mut self) {
        self.server.kill();
    }
}
