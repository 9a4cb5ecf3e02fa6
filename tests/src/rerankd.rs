//! The real server as a child process.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, Once, Weak, mpsc};

use serde_json::Value;

use crate::http::has_header;
use crate::{Answer, Connection, Folder, PATIENCE, eventually, require};

/// How much of a server's standard error a failed test shows, bytes.
const SHOWN_BYTES: usize = 8 << 10;

/// A running server on ports of its own, with a data folder of its own. What it wrote to standard
/// error is printed when a test fails meanwhile. Killed at drop, and also when the test's process ends
/// without one.
pub struct Rerankd {
    process: Process,
    command: Command,
    data_dir: PathBuf,
    // The last one: the process must not find it gone.
    folder: Option<Folder>,
}

/// One life of a server.
struct Process {
    child: Child,
    watchdog: Child,
    address: SocketAddr,
    admin_address: SocketAddr,
    proxy_address: Option<SocketAddr>,
    greeting: String,
    admin_greeting: String,
    proxy_greeting: String,
    stderr: Arc<Mutex<String>>,
}

/// What a server said that did not start.
#[derive(Debug)]
pub struct Refusal {
    /// Its exit code.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Rerankd {
    /// `rerankd ARGUMENTS`, with none of the caller's own settings in the environment.
    pub fn command(arguments: &[&str]) -> Command {
        let mut command = Command::new(require::server());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("RERANKD_") || name == "RUST_BACKTRACE" {
                command.env_remove(name);
            }
        }
        command.args(arguments);
        command
    }

    /// `rerankd serve` on free ports of loopback, with more flags.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(flags: &[&str]) -> Self {
        let arguments = [&["serve", "--listen", "127.0.0.1:0"], flags].concat();
        Self::spawn(Self::command(&arguments))
    }

    /// Runs a command that must become a server. If it names no data folder and no address of the
    /// admin plane, it gets an empty folder and a free port of loopback.
    ///
    /// # Panics
    /// If it does not print the lines with its addresses.
    pub fn spawn(mut command: Command) -> Self {
        let folder = keep_apart(&mut command);
        let data_dir = setting(&command, "--data-dir").expect("`keep_apart` sees to it");
        Self {
            process: Process::start(&mut command, folder.as_ref()),
            command,
            data_dir: data_dir.into(),
            folder,
        }
    }

    /// Kills it if it runs, and starts it anew as it was started before: on the same data folder, and
    /// on other ports if they were free ones.
    ///
    /// # Panics
    /// As [`Rerankd::spawn`].
    pub fn restart(&mut self) {
        self.kill();
        self.process = Process::start(&mut self.command, self.folder.as_ref());
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        // Fails only where it has ended already.
        let _ = self.process.child.kill();
        let _ = self.process.child.wait();
    }

    /// Runs `rerankd ARGUMENTS`, which must end by itself.
    ///
    /// # Panics
    /// If it becomes a server instead.
    pub fn run(mut command: Command) -> Refusal {
        let _folder = keep_apart(&mut command);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary is executable");
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let readers = [
            collect(child.stdout.take().expect("it is piped"), &stdout),
            collect(child.stderr.take().expect("it is piped"), &stderr),
        ];
        let text = |pipe: &Arc<Mutex<String>>| pipe.lock().expect("no reader panicked").clone();
        let status = eventually("the command ends", || {
            if text(&stdout).contains(" listening on ") {
                child.kill().expect("it is our child");
                child.wait().expect("it is our child");
                panic!("it must not start, but it said: {}", text(&stdout));
            }
            child.try_wait().expect("it is our child")
        });
        for reader in readers {
            reader.join().expect("a reader does not panic");
        }
        Refusal {
            code: status.code(),
            stdout: text(&stdout),
            stderr: text(&stderr),
        }
    }

    /// Where the data plane listens.
    pub fn address(&self) -> SocketAddr {
        self.process.address
    }

    /// Where the admin plane listens.
    pub fn admin_address(&self) -> SocketAddr {
        self.process.admin_address
    }

    /// Where the search proxy listens.
    ///
    /// # Panics
    /// If the server was started without `--upstream`.
    pub fn proxy_address(&self) -> SocketAddr {
        let address = self.process.proxy_address;
        address.expect("the server was started with `--upstream`")
    }

    /// Its data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The token that may do everything.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn admin_token(&self) -> String {
        let path = self.data_dir.join("admin-token");
        let text = std::fs::read_to_string(&path);
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.trim().to_owned()
    }

    /// The line that it printed when it was ready.
    pub fn greeting(&self) -> &str {
        &self.process.greeting
    }

    /// The line after that: about the admin plane.
    pub fn admin_greeting(&self) -> &str {
        &self.process.admin_greeting
    }

    /// The line after that: about the search proxy, if there is one.
    pub fn proxy_greeting(&self) -> &str {
        &self.process.proxy_greeting
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.child.id()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.process
            .stderr
            .lock()
            .expect("no reader panicked")
            .clone()
    }

    /// A connection to it.
    ///
    /// # Panics
    /// If it does not listen.
    pub fn connect(&self) -> Connection {
        Connection::open(self.address()).expect("the server listens")
    }

    /// One request to the admin plane on a connection of its own. `Host` is its address, and the
    /// token the one that may do everything, where `headers` have no other.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn admin_call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let host = self.admin_address().to_string();
        let mut all = headers.to_vec();
        if !has_header(headers, "host") {
            all.push(("Host", &host));
        }
        let bearer;
        if !has_header(headers, "authorization") {
            bearer = format!("Bearer {}", self.admin_token());
            all.push(("Authorization", &bearer));
        }
        let mut connection =
            Connection::open(self.admin_address()).expect("the admin plane listens");
        // The server may answer and close before it has read the whole body.
        let sent = connection.request(method, path, &all, body);
        let answer = connection.answer();
        answer.unwrap_or_else(|error| panic!("no answer to {method} {path}: {error} ({sent:?})"))
    }

    /// One request on a connection of its own.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut connection = self.connect();
        // The server may answer and close before it has read the whole body.
        let sent = connection.request(method, path, headers, body);
        let answer = connection.answer();
        answer.unwrap_or_else(|error| panic!("no answer to {method} {path}: {error} ({sent:?})"))
    }

    /// A GET.
    pub fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], b"")
    }

    /// A POST of JSON.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, body.to_string())
    }

    /// A POST of a body that may be anything but is called JSON.
    pub fn post_text(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        let headers = [("Content-Type", "application/json")];
        self.call("POST", path, &headers, body.as_ref())
    }

    /// The sum of a metric's samples that have all these labels; 0 if there is none.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let metrics = self.admin_call("GET", "/metrics", &[], b"").ok();
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{value}\""))
            .collect();
        let samples = metrics.text().lines().filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ')?;
            let (metric, of) = sample.split_once('{').unwrap_or((sample, ""));
            let fits = metric == name && labels.iter().all(|label| of.contains(label.as_str()));
            fits.then(|| value.parse::<f64>().ok()).flatten()
        });
        samples.sum()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        signal("TERM", self.id());
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        signal("HUP", self.id());
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end.
    pub fn exit_status(&mut self) -> ExitStatus {
        wait(&mut self.process.child, "the server ends")
    }
}

impl Process {
    fn start(command: &mut Command, folder: Option<&Folder>) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary is executable");
        let watchdog = watch(child.id(), folder);
        let stderr = Arc::new(Mutex::new(String::new()));
        collect(child.stderr.take().expect("it is piped"), &stderr);
        show_on_failure(child.id(), &stderr);
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, greetings) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody may be listening any more; the pipe must not fill up all the same.
                let _ = sender.send(line);
            }
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut process = Self {
            child,
            watchdog,
            address: nowhere,
            admin_address: nowhere,
            proxy_address: setting(command, "--upstream").map(|_| nowhere),
            greeting: String::new(),
            admin_greeting: String::new(),
            proxy_greeting: String::new(),
            stderr,
        };
        let mut lines = vec![
            (&mut process.greeting, &mut process.address),
            (&mut process.admin_greeting, &mut process.admin_address),
        ];
        if let Some(address) = &mut process.proxy_address {
            lines.push((&mut process.proxy_greeting, address));
        }
        for (line, address) in lines {
            // A first start compiles its policies; those in other languages have a whole runtime in them.
            let greeting = greetings.recv_timeout(5 * PATIENCE);
            *address = greeting
                .as_ref()
                .ok()
                .and_then(|line| address_in(line))
                .unwrap_or_else(|| panic!("`rerankd` did not start: {greeting:?}"));
            *line = greeting.unwrap_or_default();
        }
        process
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // First the watchdog: a process id is ours only as long as nobody has waited for it.
        for child in [&mut self.watchdog, &mut self.child] {
            // Fails only where it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Flags that make a folder of components, and no other, the server's policies.
pub fn only_policies(folder: &Path) -> [&str; 2] {
    [
        "--policies",
        folder.to_str().expect("the checkout's path is UTF-8"),
    ]
}

/// Has every panic print the end of what the servers of this process wrote to standard error, while
/// they live.
fn show_on_failure(process: u32, stderr: &Arc<Mutex<String>>) {
    static SERVERS: Mutex<Vec<(u32, Weak<Mutex<String>>)>> = Mutex::new(Vec::new());
    static HOOK: Once = Once::new();
    let mut servers = SERVERS.lock().expect("nothing panics while it holds this");
    servers.retain(|(_, stderr)| stderr.strong_count() > 0);
    servers.push((process, Arc::downgrade(stderr)));
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            let Ok(servers) = SERVERS.try_lock() else {
                return;
            };
            for (process, stderr) in servers.iter() {
                let stderr = stderr.upgrade();
                let Some(Ok(text)) = stderr.as_ref().map(|stderr| stderr.try_lock()) else {
                    continue;
                };
                let end = &text[text.ceil_char_boundary(text.len().saturating_sub(SHOWN_BYTES))..];
                eprintln!("--- standard error of rerankd (process {process}) ---\n{end}---");
            }
        }));
    });
}

/// What a flag says of a command, or its variable.
fn setting(command: &Command, flag: &str) -> Option<String> {
    let text = |value: &std::ffi::OsStr| value.to_str().expect("it is UTF-8").to_owned();
    let mut arguments = command.get_args();
    if arguments.any(|argument| argument == flag) {
        return arguments.next().map(text);
    }
    let variable = format!("RERANKD_{}", flag[2..].replace('-', "_").to_uppercase());
    let mut variables = command.get_envs();
    let (_, value) = variables.find(|(name, _)| *name == variable.as_str())?;
    value.map(text)
}

/// No server of a test may meet another one's data or ports, or those of who runs the test.
fn keep_apart(command: &mut Command) -> Option<Folder> {
    let is = |wanted: &str| command.get_args().any(|argument| argument == wanted);
    if !is("serve") || is("--help") || is("--print-config") {
        return None;
    }
    if setting(command, "--admin-listen").is_none() {
        command.args(["--admin-listen", "127.0.0.1:0"]);
    }
    if setting(command, "--data-dir").is_some() {
        return None;
    }
    let folder = Folder::new();
    // The server makes it.
    command.arg("--data-dir").arg(folder.path().join("data"));
    Some(folder)
}

/// The address in a greeting.
fn address_in(greeting: &str) -> Option<SocketAddr> {
    let (_, rest) = greeting.split_once("://")?;
    rest.split([' ', ',']).next()?.parse().ok()
}

/// A server in a static is never dropped. This process ends it when the test's end of the pipe closes,
/// and removes its folder.
fn watch(server: u32, folder: Option<&Folder>) -> Child {
    let script = "read -r _; kill -KILL \"$0\"; [ -z \"$1\" ] || rm -rf -- \"$1\"";
    let folder = folder.map_or(Path::new(""), Folder::path);
    Command::new("sh")
        .args(["-c", script, &server.to_string()])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("there is a shell")
}

fn signal(name: &str, process: u32) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &process.to_string()])
        .status();
    assert!(
        status.expect("there is `kill`").success(),
        "no process {process}"
    );
}

fn wait(child: &mut Child, what: &str) -> ExitStatus {
    eventually(what, || child.try_wait().expect("it is our child"))
}

fn collect(
    mut pipe: impl Read + Send + 'static,
    text: &Arc<Mutex<String>>,
) -> std::thread::JoinHandle<()> {
    let text = Arc::clone(text);
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = pipe.read(&mut bytes) {
            let mut text = text.lock().expect("no reader panicked");
            text.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    })
}
