//! The Helm chart: what it renders for the ways in which it is installed, and the rules that all of it keeps.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use system_tests::chart::{self, Helm, Values};
use system_tests::daemon::{Scene, binary};
use system_tests::{image, process};

/// The ways in which the chart is installed.
fn ways() -> Vec<(&'static str, Values)> {
    let values = Values::defaults;
    vec![
        ("by default", values()),
        ("beside cvmfs-csi", values().set("driverName=cvmfs.volplane.example").set("storageClasses.all.name=volplane")),
        ("with FlexVolume", values().set("flexVolume.enabled=true")),
        ("with the registrar", values().set("registrar.enabled=true")),
        ("without a controller", values().set("controller.enabled=false")),
        ("without workers of their own", values().set("workers.enabled=false")),
        ("on Magnum", values().file("values-magnum.yaml")),
        (
            "with everything",
            values()
                .file("values-magnum.yaml")
                .set("registrar.enabled=true,networkPolicy.enabled=true,podMonitor.enabled=true")
                .set("imagePullSecrets[0].name=pull,labels.team=storage,node.podLabels.a=b,node.podAnnotations.c=d")
                .set("workers.podAnnotations.e=f,controller.affinity.x=y,node.extraArguments[0]=--log-level=debug")
                .set("config.csi.topology.site=meyrin,config.csi.max_volumes=100,config.cvmfs.pod_repositories={*.cern.ch}")
                .set("storageClasses.repositories[0].name=cvmfs-atlas")
                .set("storageClasses.repositories[0].repository=atlas.cern.ch")
                .set_json("cvmfs.configD", &json!({"sw.example.org.conf": "CVMFS_SERVER_URL='http://x/@fqrn@'\n# \u{fc} \"quoted\": yes"}))
                .set_json("cvmfs.keys", &json!({"example.org/sw.pub": "-----BEGIN PUBLIC KEY-----"})),
        ),
    ]
}

/// Runs `check` on what each way renders.
fn in_all_ways(test: &str, check: impl Fn(&str, &Objects)) {
    let helm = match Helm::find() {
        Ok(helm) => helm,
        Err(reason) => return process::skip(&format!("chart: {test}"), &reason),
    };
    for (way, values) in ways() {
        check(way, &Objects(helm.objects("volplane", "storage", &values)));
    }
}

/// What was rendered.
struct Objects(Vec<Value>);

impl Objects {
    fn of_kind(&self, kind: &str) -> Vec<&Value> {
        self.0.iter().filter(|object| object["kind"] == kind).collect()
    }

    fn named(&self, kind: &str, name: &str) -> &Value {
        let found = self.of_kind(kind).into_iter().find(|object| object["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
    }

    /// DaemonSets and Deployments.
    fn workloads(&self) -> Vec<Workload<'_>> {
        let kinds = ["DaemonSet", "Deployment"];
        self.0
            .iter()
            .filter(|object| kinds.contains(&object["kind"].as_str().unwrap_or_default()))
            .map(|object| Workload {
                name: text(&object["metadata"]["name"]),
                object,
                pod: &object["spec"]["template"]["spec"],
            })
            .collect()
    }
}

struct Workload<'a> {
    name: &'a str,
    object: &'a Value,
    pod: &'a Value,
}

impl<'a> Workload<'a> {
    fn containers(&self) -> Vec<&'a Value> {
        items(&self.pod["initContainers"]).chain(items(&self.pod["containers"])).collect()
    }

    fn volume(&self, name: &str) -> &'a Value {
        let found = items(&self.pod["volumes"]).find(|volume| volume["name"] == name);
        found.unwrap_or_else(|| panic!("{}: there is no volume {name}", self.name))
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

#[test]
fn helm_finds_no_fault() {
    let helm = match Helm::find() {
        Ok(helm) => helm,
        Err(reason) => return process::skip("chart: helm_finds_no_fault", &reason),
    };
    for (way, values) in ways() {
        helm.lint(&values).unwrap_or_else(|error| panic!("{way}: {error}"));
    }
}

#[test]
fn one_container_is_privileged_and_all_others_have_nothing() {
    in_all_ways("one_container_is_privileged_and_all_others_have_nothing", |way, objects| {
        let mut privileged = Vec::new();
        for workload in objects.workloads() {
            let pod = workload.pod;
            for host in ["hostPID", "hostIPC", "hostUsers", "shareProcessNamespace"] {
                assert!(pod[host].is_null(), "{way}: {}: {host}", workload.name);
            }
            assert!(pod["hostNetwork"] != true, "{way}: {}", workload.name);
            assert_eq!(pod["automountServiceAccountToken"], false, "{way}: {}", workload.name);
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            for container in workload.containers() {
                let here = format!("{way}: {}/{}", workload.name, text(&container["name"]));
                let rights = &container["securityContext"];
                assert_eq!(rights["readOnlyRootFilesystem"], true, "{here}");
                assert!(rights["capabilities"]["add"].is_null(), "{here}");
                if rights["privileged"] == true {
                    privileged.push(here);
                    continue;
                }
                assert_eq!(rights["capabilities"]["drop"][0], "ALL", "{here}");
                assert_eq!(rights["allowPrivilegeEscalation"], false, "{here}");
                for mount in items(&container["volumeMounts"]) {
                    assert!(mount["mountPropagation"].is_null(), "{here}: {mount}");
                }
            }
        }
        assert_eq!(privileged, [format!("{way}: volplane-node/volplane")]);
    });
}

#[test]
fn only_what_must_sees_the_node() {
    in_all_ways("only_what_must_sees_the_node", |way, objects| {
        for workload in objects.workloads() {
            let paths: Vec<&str> = items(&workload.pod["volumes"])
                .filter_map(|volume| volume["hostPath"]["path"].as_str())
                .collect();
            let (pod, security) = (workload.pod, &workload.pod["securityContext"]);
            match workload.name {
                "volplane-node" => {
                    let expected =
                        ["/run/volplane", "/var/lib/volplane", "/var/cache/volplane", "/var/lib/kubelet/"];
                    for path in paths {
                        let known = expected.iter().any(|start| path.starts_with(start));
                        assert!(known || path.ends_with("/volume/exec"), "{way}: {path}");
                    }
                }
                "volplane-workers" => {
                    assert_eq!(paths, ["/run/volplane/nursery", "/var/cache/volplane"], "{way}");
                    assert_eq!(
                        (&security["runAsNonRoot"], &security["runAsUser"]),
                        (&true.into(), &60987.into())
                    );
                }
                "volplane-controller" => {
                    assert!(paths.is_empty(), "{way}: {paths:?}");
                    assert_eq!(
                        (&security["runAsNonRoot"], &security["runAsUser"]),
                        (&true.into(), &60987.into())
                    );
                }
                other => panic!("{way}: {other}: {pod}"),
            }
        }
    });
    assert!(image::USER.starts_with("60987:"));
}

#[test]
fn every_container_has_limits_and_a_probe_where_a_restart_helps() {
    in_all_ways("every_container_has_limits_and_a_probe_where_a_restart_helps", |way, objects| {
        for workload in objects.workloads() {
            for container in workload.containers() {
                let here = format!("{way}: {}/{}", workload.name, text(&container["name"]));
                let resources = &container["resources"];
                assert!(resources["requests"]["cpu"].is_string(), "{here}");
                assert!(
                    resources["requests"]["memory"].is_string() && resources["limits"]["memory"].is_string(),
                    "{here}"
                );
                assert!(container["imagePullPolicy"].is_string(), "{here}");
            }
            for container in items(&workload.pod["containers"]) {
                // A restart of the workers is what their pod exists to avoid.
                let probed = !container["livenessProbe"].is_null();
                assert_eq!(probed, workload.name != "volplane-workers", "{way}: {}", workload.name);
            }
            assert!(text(&workload.pod["priorityClassName"]).starts_with("system-"), "{way}");
        }
    });
}

#[test]
fn an_upgrade_touches_no_mount() {
    in_all_ways("an_upgrade_touches_no_mount", |way, objects| {
        let strategy =
            |name: &str| text(&objects.named("DaemonSet", name)["spec"]["updateStrategy"]["type"]).to_owned();
        if way == "without workers of their own" {
            assert_eq!(strategy("volplane-node"), "OnDelete", "{way}");
            assert_eq!(objects.of_kind("DaemonSet").len(), 1);
        } else {
            assert_eq!(strategy("volplane-node"), "RollingUpdate", "{way}");
            assert_eq!(strategy("volplane-workers"), "OnDelete", "{way}");
        }
    });
}

#[test]
fn what_is_named_exists() {
    in_all_ways("what_is_named_exists", |way, objects| {
        for workload in objects.workloads() {
            let mut mounted = BTreeSet::new();
            for container in workload.containers() {
                for mount in items(&container["volumeMounts"]) {
                    workload.volume(text(&mount["name"]));
                    mounted.insert(text(&mount["name"]));
                }
            }
            for volume in items(&workload.pod["volumes"]) {
                assert!(mounted.contains(text(&volume["name"])), "{way}: {volume} is used by nobody");
                let Some(name) = volume["configMap"]["name"].as_str() else { continue };
                let data = &objects.named("ConfigMap", name)["data"];
                let wanted: Vec<&str> =
                    items(&volume["configMap"]["items"]).map(|item| text(&item["key"])).collect();
                assert!(
                    !wanted.is_empty() && wanted.iter().all(|key| data[key].is_string()),
                    "{way}: {wanted:?}"
                );
            }
            objects.named("ServiceAccount", text(&workload.pod["serviceAccountName"]));
            let (labels, selector) = (
                &workload.object["spec"]["template"]["metadata"]["labels"],
                workload.object["spec"]["selector"]["matchLabels"].as_object().unwrap(),
            );
            assert!(selector.iter().all(|(key, value)| &labels[key] == value), "{way}: {}", workload.name);
        }
        for kind in ["RoleBinding", "ClusterRoleBinding"] {
            for binding in objects.of_kind(kind) {
                objects.named(text(&binding["roleRef"]["kind"]), text(&binding["roleRef"]["name"]));
                let subject = &binding["subjects"][0];
                assert_eq!(
                    objects.named("ServiceAccount", text(&subject["name"]))["metadata"]["namespace"],
                    subject["namespace"]
                );
            }
        }
        for monitor in objects.of_kind("PodMonitor") {
            let node = objects.named("DaemonSet", "volplane-node");
            let ports = &node["spec"]["template"]["spec"]["containers"][0]["ports"];
            let wanted = &monitor["spec"]["podMetricsEndpoints"][0]["port"];
            assert!(items(ports).any(|port| &port["name"] == wanted), "{way}: {wanted}");
            assert_eq!(monitor["spec"]["selector"], node["spec"]["selector"], "{way}");
        }
        let driver = text(&objects.of_kind("CSIDriver")[0]["metadata"]["name"]).to_owned();
        for class in objects.of_kind("StorageClass") {
            assert_eq!(class["provisioner"], driver.as_str(), "{way}");
        }
    });
}

#[test]
fn node_and_workers_share_what_they_must() {
    in_all_ways("node_and_workers_share_what_they_must", |way, objects| {
        let workloads = objects.workloads();
        let find = |name: &str| workloads.iter().find(|workload| workload.name == name);
        let (Some(node), Some(workers)) = (find("volplane-node"), find("volplane-workers")) else {
            assert_eq!(way, "without workers of their own");
            return;
        };
        let main = |workload: &Workload<'_>| {
            items(&workload.pod["containers"]).next().unwrap()["volumeMounts"].clone()
        };
        let path = |mounts: &Value, name: &str| {
            let mount = items(mounts).find(|mount| mount["name"] == name);
            text(&mount.unwrap_or_else(|| panic!("{way}: {name}"))["mountPath"]).to_owned()
        };
        let (of_node, of_workers) = (main(node), main(workers));
        for name in ["cache", "cvmfs-config"] {
            assert_eq!(path(&of_node, name), path(&of_workers, name), "{way}");
            assert_eq!(node.volume(name), workers.volume(name), "{way}");
        }
        let run = text(&node.volume("run")["hostPath"]["path"]);
        assert_eq!(workers.volume("nursery")["hostPath"]["path"], format!("{run}/nursery"), "{way}");
        assert_eq!(path(&of_workers, "nursery"), format!("{}/nursery", path(&of_node, "run")), "{way}");
        // Kubelet's paths mean the same to the daemon.
        for mount in
            items(&of_node).filter(|mount| text(&mount["mountPath"]).starts_with("/var/lib/kubelet/"))
        {
            assert_eq!(node.volume(text(&mount["name"]))["hostPath"]["path"], mount["mountPath"], "{way}");
        }
    });
}

#[test]
fn all_images_come_from_the_registry_that_is_set() {
    in_all_ways("all_images_come_from_the_registry_that_is_set", |way, objects| {
        let magnum = ["on Magnum", "with everything"].contains(&way);
        for workload in objects.workloads() {
            for container in workload.containers() {
                let name = text(&container["image"]);
                if magnum {
                    let rest = name.strip_prefix("registry.example.org/magnum/");
                    assert!(rest.is_some_and(|rest| !rest.contains('/')), "{way}: {name}");
                } else {
                    let known = [image::NAME, "registry.k8s.io/sig-storage/"];
                    assert!(known.iter().any(|known| name.starts_with(known)), "{way}: {name}");
                }
                assert!(name.rsplit_once(':').is_some_and(|(_, tag)| tag != "latest"), "{way}: {name}");
            }
        }
    });
}

#[test]
fn names_fit_and_two_releases_do_not_meet() {
    let helm = match Helm::find() {
        Ok(helm) => helm,
        Err(reason) => return process::skip("chart: names_fit_and_two_releases_do_not_meet", &reason),
    };
    let long = "a-release-with-a-name-as-long-as-helm-allows-it-1-53x";
    assert_eq!(long.len(), 53);
    let full = Values::defaults().set("networkPolicy.enabled=true,podMonitor.enabled=true");
    let names = |release: &str, namespace: &str, cluster_wide: bool| -> BTreeSet<String> {
        let objects = helm.objects(release, namespace, &full);
        let chosen =
            objects.iter().filter(|object| object["metadata"]["namespace"].is_null() == cluster_wide);
        chosen
            .map(|object| format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"])))
            .collect()
    };
    for release in [long, "volplane", "x"] {
        // Names of workloads become names of pods and values of labels; roles may be longer.
        for (cluster_wide, limit) in [(false, 63), (true, 253)] {
            for name in names(release, "storage", cluster_wide) {
                let (_, name) = name.split_once(' ').unwrap();
                assert!(name.len() <= limit && !name.ends_with('-'), "{name}");
            }
        }
    }
    // What is not in a namespace is told apart by it; only driver and class are meant to be one.
    let common: Vec<String> =
        names("volplane", "one", true).intersection(&names("volplane", "two", true)).cloned().collect();
    assert_eq!(common, ["CSIDriver cvmfs.csi.cern.ch", "StorageClass cvmfs"]);
}

#[test]
fn values_that_mean_nothing_are_refused() {
    let helm = match Helm::find() {
        Ok(helm) => helm,
        Err(reason) => return process::skip("chart: values_that_mean_nothing_are_refused", &reason),
    };
    for (value, word) in [
        ("nodes.hostNetwork=true", "nodes"),
        ("node.hostPID=true", "hostPID"),
        ("kubeletDirectory=var/lib/kubelet", "kubeletDirectory"),
        ("driverName=No_Driver", "driverName"),
        ("workers.updateStrategy.type=Recreate", "updateStrategy"),
        ("config.run_dir=/elsewhere", "config"),
        ("storageClasses.repositories[0].repository=atlas.cern.ch", "name"),
        ("flexVolume.vendor=../x", "vendor"),
        ("image.digest=sha256:12", "digest"),
    ] {
        let said = helm.manifest("volplane", "storage", &Values::defaults().set(value)).expect_err(value);
        assert!(said.contains(word), "{value}: {said}");
    }
    let outside = Values::defaults().set_json("cvmfs.keys", &json!({"a/../../b": "x"}));
    let said = helm.manifest("volplane", "storage", &outside).expect_err("a key outside of keys/");
    assert!(said.contains("a/../../b"), "{said}");
}

#[test]
fn the_daemon_takes_the_settings_that_are_rendered() {
    in_all_ways("the_daemon_takes_the_settings_that_are_rendered", |way, objects| {
        let scene = Scene::new();
        let data = objects.named("ConfigMap", "volplane")["data"].as_object().unwrap().clone();
        for (name, settings) in data {
            let file = scene.path(&name);
            fs::write(&file, text(&settings)).unwrap();
            let output =
                Command::new(binary()).args(["serve", "--check", "--config"]).arg(&file).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{way}: {name}: {said}\n{}", text(&settings));
        }
    });
}

#[test]
fn the_chart_is_of_this_version_and_says_what_its_values_are() {
    let directory = chart::directory();
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
    let about = &chart::parse(&read("Chart.yaml"))[0];
    assert_eq!(about["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(about["appVersion"], env!("CARGO_PKG_VERSION"));

    // Outer keys have a comment; inner ones that follow a blank line or have one are enough of a rule for people.
    let values = read("values.yaml");
    let lines: Vec<&str> = values.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        if line.starts_with(|c: char| c.is_ascii_lowercase()) {
            assert!(number > 0 && lines[number - 1].starts_with('#'), "values.yaml:{}: {line}", number + 1);
        }
    }
}

#[test]
fn the_examples_are_for_what_the_chart_makes() {
    let mut kinds = BTreeSet::new();
    for entry in fs::read_dir(chart::directory().join("../examples")).unwrap() {
        let path = entry.unwrap().path();
        let objects = chart::parse(&fs::read_to_string(&path).unwrap());
        assert!(!objects.is_empty(), "{path:?}");
        for object in &objects {
            let shown = object.to_string();
            kinds.insert(text(&object["kind"]).to_owned());
            for driver in [
                &object["provisioner"],
                &object["spec"]["csi"]["driver"],
                &object["spec"]["volumes"][0]["csi"]["driver"],
            ] {
                assert!(driver.is_null() || driver == "cvmfs.csi.cern.ch", "{path:?}: {driver}");
            }
            assert!(!shown.contains("hostPath") && !shown.contains("privileged"), "{path:?}");
        }
    }
    assert!(kinds.len() >= 5, "{kinds:?}");
}
