//! Flags, environment and file become one configuration; what is wrong with it is said all at once.

use std::net::SocketAddr;

use rerankd_tests::rerankd::Refusal;
use rerankd_tests::{Folder, Rerankd};

/// `rerankd serve FLAGS` with more variables in the environment.
fn serve(flags: &[&str], variables: &[(&str, &str)]) -> Refusal {
    let mut command = Rerankd::command(&[&["serve"], flags].concat());
    command.envs(variables.iter().copied());
    Rerankd::run(command)
}

/// What `--print-config` prints.
#[track_caller]
fn printed(flags: &[&str], variables: &[(&str, &str)]) -> String {
    let printed = serve(&[flags, &["--print-config"]].concat(), variables);
    assert_eq!(
        (printed.code, printed.stderr.as_str()),
        (Some(0), ""),
        "{printed:?}"
    );
    printed.stdout
}

/// A file in a folder, as text.
fn file(folder: &Folder, content: &str) -> String {
    let path = folder.write("rerankd.toml", content);
    path.to_str().expect("the path is UTF-8").to_owned()
}

/// It ends with exit code 2 and one line for each of `faults`, in which all of its parts stand.
#[track_caller]
fn assert_faults(refusal: &Refusal, faults: &[&[&str]]) {
    assert_eq!(
        (refusal.code, refusal.stdout.as_str()),
        (Some(2), ""),
        "{refusal:?}"
    );
    let lines: Vec<&str> = refusal.stderr.lines().collect();
    assert_eq!(lines.len(), faults.len(), "{}", refusal.stderr);
    for parts in faults {
        let said = lines.iter().any(|line| {
            line.starts_with("rerankd: ") && parts.iter().all(|part| line.contains(part))
        });
        assert!(said, "expected {parts:?} in: {}", refusal.stderr);
    }
}

#[test]
fn larger_tensors_have_room_on_the_host_unless_it_is_said_how_much_there_is() {
    let room = |flags: &[&str]| {
        let printed = printed(flags, &[]);
        let line = printed
            .lines()
            .find(|line| line.starts_with("guest_host_mib"));
        line.expect("it is printed").to_owned()
    };
    assert_eq!(room(&[]), "guest_host_mib = 512");
    let tensors = ["--guest-tensor-mib", "1024"];
    assert_eq!(room(&tensors), "guest_host_mib = 2048");
    let both = [&tensors[..], &["--guest-host-mib", "700"]].concat();
    assert_eq!(room(&both), "guest_host_mib = 700");
}

#[test]
fn what_is_printed_means_the_same_as_a_file() {
    let folder = Folder::new();
    let flags = [
        "--listen",
        "127.0.0.1:7777",
        "--workers",
        "3",
        "--max-documents",
        "70",
        "--timeout-ms",
        "1234",
        "--guest-cpu-ms",
        "77",
        "--load-model",
        "tiny-cross-encoder",
        "--bind-model",
        "cross-encoder.cross-encoder=bench-cross-encoder-int8",
        "--log",
        "rerankd=debug,info",
        "--log-format",
        "json",
    ];
    let first = printed(&flags, &[]);
    for line in [
        "listen = \"127.0.0.1:7777\"",
        "workers = 3",
        "max_documents = 70",
        "timeout_ms = 1234",
        "guest_cpu_ms = 77",
        "log_format = \"json\"",
        "cross-encoder = \"bench-cross-encoder-int8\"",
    ] {
        assert!(
            first.lines().any(|printed| printed == line),
            "expected `{line}` in:\n{first}"
        );
    }
    let second = printed(&["--config", &file(&folder, &first)], &[]);
    assert_eq!(first, second);

    let defaults = printed(&[], &[]);
    assert!(
        defaults.contains("listen = \"127.0.0.1:9500\""),
        "{defaults}"
    );
    assert_eq!(
        defaults,
        printed(&["--config", &file(&folder, &defaults)], &[])
    );
}

#[test]
fn policies_in_the_file_keep_all_that_is_said_of_them() {
    let folder = Folder::new();
    let content = "[policies.semantic-blend]\nallow_wasi = true\n\
                   [policies.semantic-blend.parameters]\nweight = 0.5\nfields = [\"title\"]\n\
                   [policies.semantic-blend.models]\nbi-encoder = \"all-minilm-l6-v2\"\n";
    let first = printed(&["--config", &file(&folder, content)], &[]);
    for line in ["weight = 0.5", "fields = [\"title\"]", "allow_wasi = true"] {
        assert!(
            first.lines().any(|printed| printed == line),
            "expected `{line}` in:\n{first}"
        );
    }
    assert_eq!(first, printed(&["--config", &file(&folder, &first)], &[]));
}

#[test]
fn what_is_said_of_releases_means_the_same_as_a_file() {
    let folder = Folder::new();
    let flags = [
        ["--max-component-mib", "7"],
        ["--compile-timeout-ms", "1500"],
        ["--compile-memory-mib", "512"],
        ["--probation-s", "0"],
        ["--probation-min-calls", "9"],
        ["--probation-max-faults", "12.5"],
    ];
    let grants = file(&folder, "[policies.first-stage]\ngrants = [\"title\"]\n");
    let all = [&["--config", grants.as_str()][..], &flags.concat()].concat();
    let first = printed(&all, &[]);
    let (_, releases) = first.split_once("[releases]\n").expect("it has the table");
    for line in [
        "max_component_mib = 7",
        "compile_timeout_ms = 1500",
        "compile_memory_mib = 512",
        "probation_s = 0",
        "probation_min_calls = 9",
        "probation_max_faults = 12.5",
    ] {
        assert!(
            releases.lines().any(|printed| printed == line),
            "expected `{line}` in:\n{first}"
        );
    }
    let grants = "[policies.first-stage]\nallow_wasi = false\ngrants = [\"title\"]\n";
    assert!(first.contains(grants), "{first}");
    assert_eq!(first, printed(&["--config", &file(&folder, &first)], &[]));
    // And so it is with variables.
    let variables = flags.map(|[flag, value]| {
        let name = flag[2..].replace('-', "_").to_uppercase();
        (format!("RERANKD_{name}"), value)
    });
    let variables = variables
        .each_ref()
        .map(|(name, value)| (name.as_str(), *value));
    let by_variables = printed(&[], &variables);
    let (_, same) = by_variables
        .split_once("[releases]\n")
        .expect("it has the table");
    assert_eq!(
        same.lines().take(6).collect::<Vec<_>>(),
        releases.lines().take(6).collect::<Vec<_>>()
    );
}

#[test]
fn what_makes_no_sense_of_releases_is_refused() {
    let out_of_range = |flags: &[&str]| {
        let refusal = serve(flags, &[]);
        assert_faults(
            &refusal,
            &[
                &["--max-component-mib must be 1 to 1024"],
                &["--compile-timeout-ms must be at least 1"],
                &["--compile-memory-mib must be 64 to 65536"],
                &["--probation-max-faults must be 0 to 100"],
            ],
        );
    };
    out_of_range(&[
        "--max-component-mib",
        "0",
        "--compile-timeout-ms",
        "0",
        "--compile-memory-mib",
        "63",
        "--probation-max-faults=-1",
    ]);
    out_of_range(&[
        "--max-component-mib",
        "1025",
        "--compile-timeout-ms",
        "0",
        "--compile-memory-mib",
        "65537",
        "--probation-max-faults",
        "NaN",
    ]);
}

#[test]
fn flags_go_before_the_environment_and_that_before_the_file() {
    let folder = Folder::new();
    let config = file(
        &folder,
        "[limits]\nmax_documents = 1\nmax_instances = 1\nmax_body_bytes = 1\n",
    );
    let variables = [
        ("RERANKD_MAX_DOCUMENTS", "2"),
        ("RERANKD_MAX_INSTANCES", "2"),
    ];
    let printed = printed(&["--config", &config, "--max-documents", "3"], &variables);
    for line in [
        "max_documents = 3",
        "max_instances = 2",
        "max_body_bytes = 1",
    ] {
        assert!(
            printed.lines().any(|printed| printed == line),
            "expected `{line}` in:\n{printed}"
        );
    }
    let variables = [("RERANKD_CONFIG", config.as_str())];
    assert!(self::printed(&[], &variables).contains("max_documents = 1\n"));
}

#[test]
fn all_faults_are_said_at_once() {
    let refusal = serve(
        &[
            "--listen",
            "0.0.0.0:0",
            "--workers",
            "0",
            "--log-format",
            "yaml",
            "--max-documents",
            "0",
            "--max-instances",
            "5000",
            "--max-body-bytes",
            "10",
            "--max-bytes-in-flight",
            "9",
            "--bind-model",
            "nonsense",
        ],
        &[],
    );
    assert_faults(
        &refusal,
        &[
            &[
                "`0.0.0.0:0` (--listen) can be reached from other machines",
                "--insecure",
            ],
            &["--workers", "1 to 256"],
            &["`yaml` (--log-format) must be `text` or `json`"],
            &["--max-documents must be at least 1"],
            &["--max-instances must be at most 1000, got 5000"],
            &["--max-bytes-in-flight (9) must be at least --max-body-bytes (10)"],
            &["`nonsense` (--bind-model) must be POLICY.SLOT=MODEL"],
        ],
    );
}

#[test]
fn a_file_with_a_wrong_key_or_type_is_refused_with_the_place() {
    let folder = Folder::new();
    let check = |content: &str, parts: &[&str]| {
        let path = file(&folder, content);
        let refusal = serve(&["--config", &path, "--print-config"], &[]);
        assert_eq!(
            (refusal.code, refusal.stdout.as_str()),
            (Some(2), ""),
            "{refusal:?}"
        );
        for part in [&[path.as_str(), "(--config)"], parts].concat() {
            assert!(
                refusal.stderr.contains(part),
                "expected `{part}` in: {}",
                refusal.stderr
            );
        }
    };
    check(
        "listne = \"127.0.0.1:1\"\n",
        &["line 1", "unknown field `listne`", "`listen`"],
    );
    check(
        "\n[limits]\nmax_documnets = 3\n",
        &["line 3", "unknown field `max_documnets`", "`max_documents`"],
    );
    check(
        "[policies.first-stage]\nalow_wasi = true\n",
        &["line 2", "unknown field `alow_wasi`"],
    );
    check(
        "workers = \"two\"\n",
        &["line 1", "invalid type: string \"two\""],
    );
    check("workers = \n", &["line 1"]);
    check(
        "[releases]\nprobation = 7\n",
        &["line 2", "unknown field `probation`", "`probation_s`"],
    );
    check(
        "[policies.first-stage]\ngrants = \"title\"\n",
        &["line 2", "expected a sequence"],
    );
    let missing = serve(&["--config", "/nonexistent/rerankd.toml"], &[]);
    assert_faults(
        &missing,
        &[&["`/nonexistent/rerankd.toml` (--config)", "No such file"]],
    );
}

#[test]
fn off_loopback_it_listens_only_if_told_that_this_is_insecure() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let refusal = serve(&["--listen", address], &[]);
        assert_faults(
            &refusal,
            &[&["can be reached from other machines", "--insecure"]],
        );
    }
    let address = |server: &Rerankd| SocketAddr::from(([127, 0, 0, 1], server.address().port()));
    let arguments = ["serve", "--listen", "0.0.0.0:0", "--insecure"];
    let server = Rerankd::spawn(Rerankd::command(&arguments));
    let mut connection = rerankd_tests::Connection::open(address(&server)).expect("it listens");
    connection
        .request("GET", "/health/ready", &[], b"")
        .expect("it is open");
    connection.answer().expect("it is answered").ok();
}

#[test]
fn folders_that_anyone_can_write_to_are_refused() {
    let folder = Folder::new();
    folder.copy(&rerankd_tests::require::policies(), "policies");
    let path = folder.path().join("policies");
    let path = path.to_str().expect("the path is UTF-8");
    folder.set_mode("policies", 0o777);
    let refusal = serve(&["--policies", path], &[]);
    let mend = format!("`{path}` can be written by anyone: `chmod o-w {path}`");
    assert_faults(&refusal, &[&[&mend]]);

    folder.write("models/README.md", "");
    folder.set_mode("models", 0o757);
    let models = path.replace("policies", "models");
    let refusal = serve(&["--models", &models], &[]);
    assert_faults(&refusal, &[&[&models, "can be written by anyone"]]);
    let library = folder.write("lib/libonnxruntime.so", "");
    folder.set_mode("lib/libonnxruntime.so", 0o666);
    let library = library.to_str().expect("the path is UTF-8");
    let refusal = serve(&["--onnxruntime", library], &[]);
    assert_faults(&refusal, &[&[library, "can be written by anyone"]]);
    for name in ["policies", "models"] {
        folder.set_mode(name, 0o755);
    }
}

/// What a link leads to is as good as what lies there itself.
#[test]
fn links_into_folders_that_anyone_can_write_to_are_refused() {
    let folder = Folder::new();
    let root = folder.path();
    let link = |from: &str, to: &str| {
        let (from, to) = (root.join(from), root.join(to));
        let parent = to.parent().expect("it lies in a folder");
        std::fs::create_dir_all(parent).expect("the target folder is writable");
        let _ = std::fs::remove_file(&to);
        std::os::unix::fs::symlink(from, to).expect("the target folder is writable");
    };
    let path = |name: &str| root.join(name).to_str().expect("it is UTF-8").to_owned();
    let first_stage = rerankd_tests::require::policies().join("first-stage.wasm");
    folder.copy(&first_stage, "open/inside/first-stage.wasm");
    folder.copy(&first_stage, "open/first-stage.wasm");
    folder.copy(&first_stage, "good/first-stage.wasm");
    let model = rerankd_tests::require::root().join("models/tiny-cross-encoder");
    folder.copy(&model, "open/tiny-cross-encoder");
    folder.set_mode("open", 0o777);
    let open = path("open");
    let serve_with = |flags: &[&str]| {
        let refusal = serve(
            &[&["--listen", "127.0.0.1:0", "--log", "error"], flags].concat(),
            &[],
        );
        assert_ne!(refusal.code, Some(0), "{refusal:?}");
        let said = format!("`{open}` can be written by anyone");
        assert!(refusal.stderr.contains(&said), "{refusal:?}");
    };
    // The folder itself, and one above it on the way.
    link("open/inside", "policies-1");
    serve_with(&["--policies", &path("policies-1")]);
    // A file, at once or by way of a link that others can exchange.
    let policies = path("policies");
    link("open/first-stage.wasm", "policies/first-stage.wasm");
    serve_with(&["--policies", &policies]);
    link("good/first-stage.wasm", "open/link.wasm");
    link("open/link.wasm", "policies/first-stage.wasm");
    serve_with(&["--policies", &policies]);
    // The cases beside it.
    link("good/first-stage.wasm", "policies/first-stage.wasm");
    folder.write("open/cases.json", "{\"cases\": []}");
    link("open/cases.json", "policies/first-stage.cases.json");
    serve_with(&["--policies", &policies]);
    std::fs::remove_file(root.join("policies/first-stage.cases.json")).expect("it is ours");
    // A file some folders below one in which others can rename the next, and links on the way to it.
    let said_above = format!("`{open}` above it can be written by anyone");
    let refuses_above = || {
        let flags = [
            "--listen",
            "127.0.0.1:0",
            "--log",
            "error",
            "--policies",
            &policies,
        ];
        let refusal = serve(&flags, &[]);
        assert_ne!(refusal.code, Some(0), "{refusal:?}");
        assert!(refusal.stderr.contains(&said_above), "{refusal:?}");
    };
    folder.copy(&first_stage, "open/a/b/first-stage.wasm");
    link("open/a/b/first-stage.wasm", "policies/first-stage.wasm");
    refuses_above();
    link("good/first-stage.wasm", "open/a/b/link.wasm");
    link("open/a/b/link.wasm", "policies/first-stage.wasm");
    refuses_above();
    link("open/a/b", "way");
    link("way/link.wasm", "policies/first-stage.wasm");
    refuses_above();
    link("good/first-stage.wasm", "policies/first-stage.wasm");
    // A model.
    link("open/tiny-cross-encoder", "models/tiny-cross-encoder");
    let models = path("models");
    let load = ["--load-model", "tiny-cross-encoder"];
    serve_with(&[&["--policies", &policies, "--models", &models], &load[..]].concat());

    // Where nobody else can write, links are as good as files.
    folder.set_mode("open", 0o755);
    let flags = ["--policies", &policies, "--models", &models];
    let server = Rerankd::start(&[&flags[..], &load].concat());
    assert!(
        server.greeting().contains("first-stage@"),
        "{}",
        server.greeting()
    );
}

/// A reader of a FIFO waits for a writer, who need not come.
#[test]
fn what_is_no_file_is_refused_and_holds_up_no_start() {
    let folder = Folder::new();
    folder.copy(
        &rerankd_tests::require::policies().join("first-stage.wasm"),
        "policies/first-stage.wasm",
    );
    for name in [
        "pipe",
        "pipes/first-stage.wasm",
        "cases/first-stage.cases.json",
        "models/tiny-cross-encoder/manifest.toml",
    ] {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("it is writable");
        let made = std::process::Command::new("mkfifo")
            .arg("-m600")
            .arg(&path)
            .status();
        assert!(made.expect("there is `mkfifo`").success());
    }
    folder.copy(
        &rerankd_tests::require::policies().join("first-stage.wasm"),
        "cases/first-stage.wasm",
    );
    let path = |name: &str| {
        let path = folder.path().join(name);
        path.to_str().expect("it is UTF-8").to_owned()
    };
    let (pipe, policies) = (path("pipe"), path("policies"));
    let check = |flags: &[&str], named: &str| {
        let all = ["--listen", "127.0.0.1:0", "--log", "error"];
        let refusal = serve(&[&all, flags].concat(), &[]);
        assert_ne!(refusal.code, Some(0), "{refusal:?}");
        for part in [named, "is a FIFO, "] {
            assert!(refusal.stderr.contains(part), "{flags:?}: {refusal:?}");
        }
    };
    check(&["--config", &pipe], "pipe` (--config)");
    check(&["--policies", &pipe], &pipe);
    check(&["--models", &pipe], &pipe);
    check(&["--onnxruntime", &pipe], &pipe);
    check(&["--policies", &path("pipes")], "pipes/first-stage.wasm");
    check(&["--policies", &path("cases")], "first-stage.cases.json");
    let models = path("models");
    let load = ["--models", &models, "--load-model", "tiny-cross-encoder"];
    check(
        &[&["--policies", &policies][..], &load].concat(),
        "manifest.toml",
    );
    check(&["--api-key-file", &pipe], "pipe` (--api-key-file)");
    check(
        &["--tls-cert", &pipe, "--tls-key", &pipe],
        "pipe` (--tls-cert)",
    );
    let upstream = ["--upstream", "https://127.0.0.1:1", "--upstream-ca"];
    check(&[&upstream[..], &[&pipe]].concat(), "pipe` (--upstream-ca)");
    // A device neither waits nor ends.
    let refusal = serve(&["--config", "/dev/zero"], &[]);
    assert_faults(
        &refusal,
        &[&["`/dev/zero` (--config): it is a device, not a file"]],
    );
}

#[test]
fn names_of_models_are_names() {
    let refusal = serve(
        &[
            "--load-model",
            "../tiny-cross-encoder",
            "--bind-model",
            "semantic-blend.bi-encoder=../../x,cross-encoder.cross-encoder=.",
        ],
        &[],
    );
    assert_faults(
        &refusal,
        &[
            &[
                "--load-model must be one folder's name",
                "got `../tiny-cross-encoder`",
            ],
            &["the model for `semantic-blend.bi-encoder`", "got `../../x`"],
            &["the model for `cross-encoder.cross-encoder`", "got `.`"],
        ],
    );
}

#[test]
fn a_component_that_anyone_can_write_to_is_refused() {
    let folder = Folder::new();
    folder.copy(&rerankd_tests::require::policies(), "policies");
    folder.set_mode("policies/first-stage.wasm", 0o666);
    let path = folder.path().join("policies");
    let refusal = serve(
        &[
            "--listen",
            "127.0.0.1:0",
            "--policies",
            path.to_str().expect("it is UTF-8"),
        ],
        &[],
    );
    assert_ne!(refusal.code, Some(0));
    assert!(
        refusal
            .stderr
            .contains("first-stage.wasm` can be written by anyone"),
        "{}",
        refusal.stderr
    );
}

#[test]
fn help_names_every_flag_and_its_variable() {
    let help = Rerankd::run(Rerankd::command(&["serve", "--help"]));
    assert_eq!(help.code, Some(0));
    for flag in [
        "--listen",
        "--policies",
        "--onnxruntime",
        "--max-queued-tokens",
        "--insecure",
    ] {
        assert!(help.stdout.contains(flag), "{}", help.stdout);
        let variable = format!("RERANKD_{}", flag[2..].replace('-', "_").to_uppercase());
        assert!(
            help.stdout.contains(&variable),
            "expected `{variable}` in: {}",
            help.stdout
        );
    }
    for heading in [
        "Options:",
        "Data plane:",
        "Policies and models:",
        "Limits:",
        "Limits of a policy call:",
        "Search proxy:",
    ] {
        assert!(help.stdout.lines().any(|line| line == heading), "{heading}");
    }
    let help = Rerankd::run(Rerankd::command(&["--help"]));
    let headline = "A reranking sidecar for Elasticsearch and OpenSearch\n";
    assert!(help.stdout.starts_with(headline), "{}", help.stdout);
    for command in [
        &["serve"][..],
        &["policy", "check"],
        &["warm"],
        &["token", "new"],
    ] {
        let version = Rerankd::run(Rerankd::command(&[command, &["--version"]].concat()));
        assert!(
            version.stdout.starts_with("rerankd 0."),
            "{}",
            version.stdout
        );
    }
    let nothing = Rerankd::run(Rerankd::command(&[]));
    assert_eq!(nothing.code, Some(2));
    let version = Rerankd::run(Rerankd::command(&["--version"]));
    assert!(
        version.stdout.starts_with("rerankd 0."),
        "{}",
        version.stdout
    );
}

#[test]
fn what_is_said_of_rerank_apis_means_the_same_as_a_file() {
    let folder = Folder::new();
    let content = "default_policy = \"cross-encoder@0.1.0\"\n[wire]\non_failure = \"first-stage\"\ntei_metrics = true\n\
                   [wire.aliases]\n\"rerank-v3.5\" = \"cross-encoder\"\n\"BAAI/bge\" = \"semantic-blend@1.2\"\n";
    let first = printed(&["--config", &file(&folder, content)], &[]);
    for line in content.lines() {
        assert!(
            first.lines().any(|printed| printed == line),
            "expected `{line}` in:\n{first}"
        );
    }
    assert_eq!(first, printed(&["--config", &file(&folder, &first)], &[]));
    let flags = ["--default-policy", "first-stage", "--tei-metrics"];
    let flagged = printed(&flags, &[]);
    for line in ["default_policy = \"first-stage\"", "tei_metrics = true"] {
        assert!(flagged.lines().any(|printed| printed == line), "{flagged}");
    }
}

#[test]
fn wrong_names_and_words_of_rerank_apis_are_faults() {
    let folder = Folder::new();
    let content = "default_policy = \"Cross Encoder\"\n[wire]\non_failure = \"retry\"\n[wire.aliases]\na = \"x@\"\n";
    let refusal = serve(&["--config", &file(&folder, content)], &[]);
    assert_faults(
        &refusal,
        &[
            &["`Cross Encoder`", "--default-policy", "name@version"],
            &["`retry`", "wire.on_failure", "`first-stage`"],
            &["`x@`", "wire.aliases", "name@version"],
        ],
    );
}
