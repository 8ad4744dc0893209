//! The driver makes itself known to kubelet, whose part of the protocol is played here.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use proto::csi::v1::NodeGetInfoRequest;
use proto::csi::v1::identity_client::IdentityClient;
use proto::csi::v1::plugin_capability::{Type, service};
use proto::csi::v1::{GetPluginCapabilitiesRequest, GetPluginInfoRequest};
use proto::pluginregistration::registration_client::RegistrationClient;
use proto::pluginregistration::{InfoRequest, RegistrationStatus};
use system_tests::daemon::{Scene, binary};
use system_tests::kubelet::{DRIVER, Kubelet, dial, text};
use system_tests::{process, wait};

use crate::ground::Node;

#[test]
fn the_driver_registers_itself_and_again_after_a_refusal() {
    let scene = Scene::new();
    let mut node = Node::start_with(&scene, &[]);
    let kubelet = &node.kubelet;
    let socket = kubelet.root().join("plugins_registry").join(format!("{DRIVER}-reg.sock"));
    let offer = |accepted: bool| {
        wait::until("kubelet registers the driver", || {
            kubelet.runtime.block_on(async {
                let mut client = RegistrationClient::new(dial(&socket).await.ok()?);
                let info = client.get_info(InfoRequest {}).await.ok()?.into_inner();
                assert_eq!((info.r#type.as_str(), info.name.as_str()), ("CSIPlugin", DRIVER));
                assert_eq!(info.endpoint, text(kubelet.socket()));
                let status = RegistrationStatus { plugin_registered: accepted, error: "try again".into() };
                client.notify_registration_status(status).await.ok()
            })
        })
    };
    offer(false);
    offer(true);
    fs::remove_file(&socket).unwrap();
    offer(true);
    let mut client = node.kubelet.node();
    let info = node.kubelet.runtime.block_on(client.node_get_info(NodeGetInfoRequest {})).unwrap();
    assert_eq!(info.into_inner().node_id, "node-1");
    assert_eq!(fs::metadata(node.kubelet.socket()).unwrap().permissions().mode() & 0o777, 0o600);

    // A killed daemon leaves both sockets; the next one replaces them.
    node.daemon.kill();
    node.daemon.launch();
    node.kubelet.channel();
}

#[test]
fn a_controller_needs_no_root_and_tells_its_topology() {
    let scene = Scene::new();
    let kubelet = Kubelet::new(&scene);
    let own = scene.path("controller");
    for part in ["run", "state", "cache", "etc", "csi"] {
        fs::create_dir_all(own.join(part)).unwrap();
    }
    fs::set_permissions(scene.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    let socket = own.join("csi/csi.sock");
    let settings = own.join("controller.toml");
    fs::write(
        &settings,
        format!(
            "run_dir = {0:?}\nstate_dir = {1:?}\n[docker]\nenabled = false\n[cvmfs]\nconfig_dir = {2:?}\ncache_dir = {3:?}\n\
             [csi]\nroles = ['controller']\nnode_id = 'c'\ntopology = {{ site = 'meyrin' }}\n",
            own.join("run"),
            own.join("state"),
            own.join("etc"),
            own.join("cache")
        ),
    )
    .unwrap();
    // The binary may lie where only root looks.
    let program = own.join("volplane");
    fs::copy(binary(), &program).unwrap();
    process::run(Command::new("chown").args(["-R", "60987:60987"]).arg(&own));
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=60987",
        "--regid=60987",
        "--clear-groups",
        "--no-new-privs",
        "--bounding-set=-all",
    ]);
    command.arg(&program).args(["serve", "--config"]).arg(&settings);
    command.arg(format!("--csi-endpoint=cvmfs=unix://{}", socket.display()));
    let log = scene.path("log/controller");
    let mut running = process::Running::start(&mut command, &log);
    let channel = wait::until("the controller answers", || {
        assert!(running.ended().is_none(), "{}", scene.log("controller"));
        kubelet.runtime.block_on(async { dial(&socket).await.ok() })
    });
    let mut identity = IdentityClient::new(channel);
    let info = kubelet.runtime.block_on(identity.get_plugin_info(GetPluginInfoRequest {})).unwrap();
    assert_eq!(info.into_inner().name, DRIVER);
    let has = kubelet.runtime.block_on(identity.get_plugin_capabilities(GetPluginCapabilitiesRequest {}));
    let has: Vec<i32> = has
        .unwrap()
        .into_inner()
        .capabilities
        .into_iter()
        .filter_map(|one| match one.r#type {
            Some(Type::Service(service)) => Some(service.r#type),
            _ => None,
        })
        .collect();
    assert!(has.contains(&service::Type::ControllerService.into()), "{has:?}");
    assert!(has.contains(&service::Type::VolumeAccessibilityConstraints.into()), "{has:?}");
    running.signal("-TERM");
    assert!(running.wait().success());
}
