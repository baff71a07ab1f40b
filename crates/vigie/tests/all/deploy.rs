//! The files in `deploy/` and `config/production.toml`, as far as they can be judged without a container engine: by the tools
//! that read them (hadolint, promtool, systemd-analyze, vigie itself), and by what they say of each other. Nothing here has
//! been started in a container.

use crate::repository::root;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use yaml_rust2::{Yaml, YamlLoader};

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn yaml(path: &str) -> Yaml {
    let mut documents = YamlLoader::load_from_str(&text(path)).unwrap();
    assert_eq!(documents.len(), 1, "{path}");
    documents.remove(0)
}

fn strings(yaml: &Yaml) -> Vec<&str> {
    yaml.as_vec().into_iter().flatten().filter_map(Yaml::as_str).collect()
}

/// The keys of a mapping.
fn names(yaml: &Yaml) -> Vec<&str> {
    yaml.as_hash()
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.as_str())
        .collect()
}

/// Runs a tool; what it says when it is not content.
fn content(command: &mut Command, from: &str) -> Result<(), String> {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; {from} installs it"));
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

fn vigie() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vigie"))
}

#[test]
fn vigie_takes_the_production_configuration() {
    let file = root().join("config/production.toml");
    let checked = content(vigie().args(["config", "check"]).arg(&file).env_clear(), "cargo");
    assert_eq!(checked, Ok(()));
    let shown = vigie()
        .args(["config", "show", "--origin", "--config"])
        .arg(&file)
        .env_clear()
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    for line in [
        "backend = \"kafka\"",
        "backend = \"redis\"",
        "admin-listen = \"0.0.0.0:9090\"",
    ] {
        assert!(
            shown.lines().any(|shown| shown.starts_with(line)),
            "{line} is not in force:\n{shown}"
        );
    }
}

#[test]
fn vigie_takes_what_compose_puts_into_its_environment() {
    let compose = yaml("deploy/compose.yaml");
    let environment = compose["services"]["vigie"]["environment"].as_hash().unwrap();
    let mut show = vigie();
    let _ = show
        .args(["config", "show", "--config"])
        .arg(root().join("config/production.toml"))
        .env_clear();
    for (name, value) in environment {
        let _ = show.env(name.as_str().unwrap(), value.as_str().unwrap());
    }
    assert_eq!(content(&mut show, "cargo"), Ok(()));
}

#[test]
fn the_image_is_built_as_it_should_be() {
    let python = std::env::var("VIGIE_PYTHON").map_or_else(|_| root().join("target/python/bin/python"), PathBuf::from);
    let hadolint = python.parent().unwrap().join("hadolint");
    let file = root().join("deploy/Dockerfile");
    let linted = content(Command::new(hadolint).arg(&file), "make python-env");
    assert_eq!(linted, Ok(()));

    let dockerfile = text("deploy/Dockerfile");
    let last = dockerfile.rsplit("\nFROM ").next().unwrap();
    let instruction = |name: &str| last.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let user: u32 = instruction("USER ").split(':').next().unwrap().parse().unwrap();
    assert!(user > 0, "the image runs as root");
    assert!(
        last.contains("\n    CMD [\"vigie\", \"healthcheck\""),
        "the binary looks after its own health"
    );
    let configuration = instruction("COPY config/").split(' ').collect::<Vec<_>>();
    assert!(
        root().join("config").join(configuration[0]).exists(),
        "{configuration:?}"
    );
    assert!(
        instruction("CMD ").contains(configuration[1]),
        "it starts with the configuration that it brings"
    );

    // What cargo needs gets past .dockerignore.
    let let_in: BTreeSet<String> = text(".dockerignore")
        .lines()
        .filter_map(|line| line.strip_prefix('!').map(str::to_owned))
        .collect();
    let manifest: toml::Table = text("Cargo.toml").parse().unwrap();
    let members = manifest["workspace"]["members"].as_array().unwrap();
    let members = members
        .iter()
        .map(|member| member.as_str().unwrap().trim_end_matches("/*"));
    for needed in members.chain(["Cargo.toml", "Cargo.lock", "config"]) {
        assert!(let_in.contains(needed), "{needed} does not get into the image");
    }
}

#[test]
fn the_services_fit_together() {
    let compose = yaml("deploy/compose.yaml");
    let services = &compose["services"];
    let known = names(services);
    for wanted in ["kafka", "redis", "vigie", "prometheus", "grafana"] {
        assert!(known.contains(&wanted), "no {wanted}");
    }
    let volumes = names(&compose["volumes"]);
    for name in &known {
        let service = &services[*name];
        let image = service["image"].as_str().unwrap();
        let pinned = image.split_once(':').is_some_and(|(_, tag)| tag != "latest");
        assert!(
            pinned || !service["build"].is_badvalue(),
            "{name}: {image} is whatever is newest"
        );
        let needs = &service["depends_on"];
        for needed in names(needs).into_iter().chain(strings(needs)) {
            assert!(known.contains(&needed), "{name} needs {needed}, which is not there");
            let healthy = needs[needed]["condition"].as_str() == Some("service_healthy");
            let says = !services[needed]["healthcheck"].is_badvalue();
            assert!(
                !healthy || says,
                "{name} waits for the health of {needed}, which has none"
            );
        }
        for mount in strings(&service["volumes"]) {
            let source = mount.split(':').next().unwrap();
            if source.starts_with('.') {
                assert!(
                    root().join("deploy").join(source).exists(),
                    "{name}: {source} is not there"
                );
                assert!(mount.ends_with(":ro"), "{name} may change {source}");
            } else {
                assert!(volumes.contains(&source), "{name}: volume {source} is not declared");
            }
        }
        for port in strings(&service["ports"]) {
            assert!(
                port.starts_with("127.0.0.1:"),
                "{name}: {port} can be reached by everybody"
            );
        }
    }
    let vigie = &services["vigie"];
    let build = root().join("deploy").join(vigie["build"]["context"].as_str().unwrap());
    assert!(build.join(vigie["build"]["dockerfile"].as_str().unwrap()).exists());

    // The Redis is one that vigie takes.
    let redis = strings(&services["redis"]["command"]).join(" ");
    assert!(
        redis.contains("--appendonly yes") && redis.contains("--maxmemory-policy noeviction"),
        "{redis}"
    );

    // Topics and partitions are those of the configuration.
    let production: toml::Table = text("config/production.toml").parse().unwrap();
    let topics = text("deploy/compose.yaml");
    for (topic, partitions) in [
        (
            &production["kafka"]["topic"],
            production["log"]["partitions"].as_integer().unwrap(),
        ),
        (&production["kafka"]["dead-letters-topic"], 1),
    ] {
        let line = format!("make {} {partitions}\n", topic.as_str().unwrap());
        assert!(topics.contains(&line), "compose.yaml does not say {line}");
    }
    // Whoever folds what is left gets the time for it.
    let grace = vigie["stop_grace_period"]
        .as_str()
        .unwrap()
        .trim_end_matches('s')
        .parse::<u64>()
        .unwrap();
    assert!(
        grace > 25,
        "{grace} s is less than server.drain-delay and server.drain-timeout"
    );
}

#[test]
fn a_process_for_each_role_is_the_same_system() {
    let (base, over) = (yaml("deploy/compose.yaml"), yaml("deploy/compose.roles.yaml"));
    let (known, services) = (names(&base["services"]), &over["services"]);
    let shared = &over["x-role"];
    let mut roles = Vec::new();
    for name in names(services) {
        let service = &services[name];
        let command = strings(&service["command"]);
        if command.is_empty() {
            assert!(known.contains(&name), "{name} is nobody");
            continue;
        }
        let ["run", "--role", does, "--config", file] = command[..] else {
            panic!("{name}: {command:?}");
        };
        assert!(
            text("deploy/Dockerfile").contains(file),
            "{name}: {file} is not in the image"
        );
        roles.extend(does.split(',').map(str::to_owned));
        // Only workers may be many here; the others have one disk or one queue.
        assert!(
            name == "worker" || service["deploy"].is_badvalue(),
            "{name} has replicas"
        );
        if known.contains(&name) {
            continue;
        }
        // What it has in common with the one process of compose.yaml, it has in the same way.
        for key in names(shared) {
            let base = &base["services"]["vigie"][key];
            match key {
                "depends_on" => {
                    for (needed, how) in base.as_hash().unwrap() {
                        assert_eq!(&shared[key][needed.as_str().unwrap()], how, "{name}: {needed:?}");
                    }
                }
                _ => assert_eq!(&shared[key], base, "{name}: {key}"),
            }
        }
        assert!(
            text("deploy/prometheus.roles.yml").contains(name),
            "nobody scrapes {name}"
        );
    }
    roles.sort();
    let help = vigie().args(["run", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let offered = help
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- ")?.split_once(':'));
    let mut offered: Vec<String> = offered.map(|(role, _)| role.to_owned()).collect();
    offered.sort();
    assert_eq!(roles, offered, "every role is somebody's, and nobody's twice:\n{help}");

    let directory = tempfile::tempdir().unwrap();
    for (from, to) in [
        ("deploy/prometheus.roles.yml", "prometheus.yml"),
        ("dashboards/alerts.yml", "alerts.yml"),
    ] {
        std::fs::write(directory.path().join(to), text(from)).unwrap();
    }
    let file = directory.path().join("prometheus.yml");
    let checked = content(
        Command::new("promtool").args(["check", "config"]).arg(&file),
        "make tools",
    );
    assert_eq!(checked, Ok(()));
}

#[test]
fn prometheus_scrapes_what_vigie_exports() {
    let compose = yaml("deploy/compose.yaml");
    let directory = tempfile::tempdir().unwrap();
    // As it is mounted.
    for mount in strings(&compose["services"]["prometheus"]["volumes"]) {
        let parts: Vec<&str> = mount.split(':').collect();
        if parts[0].starts_with('.') {
            let name = Path::new(parts[1]).file_name().unwrap();
            let _ = std::fs::copy(root().join("deploy").join(parts[0]), directory.path().join(name)).unwrap();
        }
    }
    let file = directory.path().join("prometheus.yml");
    let checked = content(
        Command::new("promtool").args(["check", "config"]).arg(&file),
        "make tools",
    );
    assert_eq!(checked, Ok(()));
    let job = &yaml("deploy/prometheus.yml")["scrape_configs"][0];
    let target = strings(&job["static_configs"][0]["targets"])[0].to_owned();
    let production: toml::Table = text("config/production.toml").parse().unwrap();
    let admin = production["server"]["admin-listen"].as_str().unwrap();
    assert_eq!(
        target.rsplit(':').next(),
        admin.rsplit(':').next(),
        "the port of /metrics"
    );
    let name = job["job_name"].as_str().unwrap();
    assert!(
        text("dashboards/alerts.yml").contains(&format!("job=\\\"{name}\\\"")),
        "alerts name another job"
    );
}

#[test]
fn grafana_finds_data_and_dashboards() {
    let compose = yaml("deploy/compose.yaml");
    let grafana = &compose["services"]["grafana"];
    let source = yaml("deploy/grafana/datasource.yml");
    let url = source["datasources"][0]["url"].as_str().unwrap();
    let host = url.trim_start_matches("http://").split(':').next().unwrap();
    assert!(names(&compose["services"]).contains(&host), "{url}");
    let provider = yaml("dashboards/grafana/provisioning.yml");
    let path = provider["providers"][0]["options"]["path"].as_str().unwrap();
    let mounts = strings(&grafana["volumes"]);
    assert!(
        mounts.iter().any(|mount| mount.split(':').nth(1) == Some(path)),
        "nothing is mounted at {path}"
    );
}

#[test]
fn the_unit_is_understood_and_leaves_little_open() {
    let directory = tempfile::tempdir().unwrap();
    let unit = directory.path().join("vigie.service");
    // The binary of an installation is not here.
    let verified = text("deploy/vigie.service").replace("/usr/local/bin/vigie", "/bin/true");
    std::fs::write(&unit, &verified).unwrap();
    let checked = content(
        Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit),
        "make tools",
    );
    assert_eq!(checked, Ok(()));
    // Exposure in tenths, of 100: a unit without any of it has 96.
    let secure = content(
        Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=20", "--no-pager"])
            .arg(&unit),
        "make tools",
    );
    assert_eq!(secure, Ok(()));
    // It starts vigie with a command and a configuration that exist, and stops it by what it listens to.
    let production = text("deploy/Dockerfile");
    let start = verified
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))
        .unwrap();
    assert!(start.ends_with("up --config /etc/vigie/vigie.toml") && production.contains("/etc/vigie/vigie.toml"));
    assert!(verified.contains("\nKillSignal=SIGTERM\n"));
}
