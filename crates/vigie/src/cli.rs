//! The command line: arguments in, exit code out. It words what people read; what it reports comes from elsewhere.
//!
//! Exit codes: 0 done, 1 it did not work, 2 the arguments or the configuration are wrong. An audit has its own.

use crate::client::{self, Server as Remote};
use crate::clocks;
use crate::config::commands::{self, ShowOptions};
use crate::config::{self, Config, ConfigSources};
use crate::demo::{self, Data};
use crate::past::commands as commands_past;
use crate::roles::{Role, Roles};
use crate::server;
use crate::topics;
use anyhow::{Result, anyhow};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use vigie_event::{CustomerKey, PersonId, Workspace};

/// Who is drifting away, how likely each is to leave, and whom to contact now.
#[derive(Debug, Parser)]
#[command(name = "vigie", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in one process: collector, worker, API; log and store on the local disk
    Up(Up),
    /// Run some of the roles beside other processes, on Kafka and Redis
    Run {
        /// What this process does; several, separated by commas
        #[arg(long, value_enum, required = true, value_delimiter = ',')]
        role: Vec<Role>,
        #[command(flatten)]
        up: Up,
    },
    /// Plan or make the topics that the log needs
    #[command(subcommand)]
    Topics(topics::Topics),
    /// Print the Redis key of a customer, for programs that read scores there
    RedisKey {
        /// The customer's id; anonymous ids begin with `anonymous:`
        customer: String,
        /// The workspace
        #[arg(long, default_value = "default")]
        workspace: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Show vigie at work on simulated or real purchases, with nothing to set up
    Demo(Demo),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at events that could not be taken, and feed them again
    #[command(subcommand)]
    DeadLetters(Letters),
    /// Rights of people: export, objection, proof of consent
    #[command(subcommand)]
    Privacy(crate::privacy::Rights),
    /// Links of e-mails
    #[command(subcommand)]
    Links(crate::links::Links),
    /// Look at destinations of relances, send relances again, go on after a halt
    #[command(subcommand)]
    Deliveries(crate::deliveries::Commands),
    /// What became of every event of a workspace; they balance to zero
    Books {
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Ask in SQL about events, customers, companies, flags and dead letters
    Sql(commands_past::Sql),
    /// How a customer's scores came about: events, contributions, flags and refusals
    Explain(commands_past::Explain),
    /// Recompute the store from the archive and compare: exit 0 equal, 1 different, 2 not measured
    Audit(commands_past::AuditArgs),
    /// Rebuild the store of a stopped server from its archive
    Rebuild(commands_past::RebuildArgs),
    Replay(Box<crate::replay::Replay>),
    Import(Box<crate::importing::ImportArgs>),
    Report(crate::report::ReportArgs),
    /// Show the model in force, set a candidate beside it, promote it
    #[command(subcommand)]
    Model(crate::models::Commands),
    /// Check a policy file, compare two, rehearse one, put it in force
    #[command(subcommand)]
    Policy(crate::policy::PolicyCommand),
    Fit(crate::fitting::Fit),
    Backtest(crate::fitting::BacktestArgs),
    Doctor(crate::doctor::Doctor),
    Status(crate::status::Status),
    Backup(crate::backup::Backup),
    Restore(crate::backup::Restore),
    /// Exit 0 when a server is ready, 1 when it is not (for containers and load balancers)
    Healthcheck {
        /// Address of the server
        #[arg(long, env = "VIGIE_URL", default_value = "http://127.0.0.1:8080")]
        url: String,
    },
    /// Print the version
    Version {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Text for people, or JSON for machines
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Configuration file (TOML); config/reference.toml documents every setting
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// One setting, for example --set pipeline.batch-records=1000; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    settings: Vec<(String, String)>,
}

#[derive(Debug, Args)]
struct Up {
    #[command(flatten)]
    settings: Settings,
    /// Directory of the log, the store and the generated keys [setting: data.dir]
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Address of the collector and the API; port 0 takes a free one [setting: server.listen]
    #[arg(long)]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct Demo {
    /// What to play
    #[arg(long, value_enum, default_value_t = Data::Shop)]
    data: Data,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Seed of the simulated shop: the same seed gives the same customers
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Customers of the simulated shop
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    customers: u32,
    /// Keep the data here instead of in a temporary directory
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Stop by itself once history is loaded and live scores were shown
    #[arg(long)]
    once: bool,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a configuration and report everything that is wrong with it
    Check {
        /// The file to check, the same as --config
        file: Option<PathBuf>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Show the configuration in force; keys are never shown
    Show {
        #[command(flatten)]
        settings: Settings,
        /// Say where each value came from
        #[arg(long)]
        origin: bool,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RemoteArgs {
    /// Address of the server
    #[arg(long, env = "VIGIE_URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// Key: a read key for the books, an admin key for dead letters and rights of people
    #[arg(long, env = "VIGIE_KEY", hide_env_values = true)]
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
enum Letters {
    /// List them, newest first
    List {
        #[command(flatten)]
        remote: RemoteArgs,
        /// At most this many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Where the page before said that the next one begins
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Show one with its original bytes
    Show {
        /// Its id
        id: String,
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Read one again, as if it had just been received; an event that was taken meanwhile counts once
    Retry {
        /// Its id
        id: String,
        #[command(flatten)]
        remote: RemoteArgs,
    },
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .ok_or_else(|| "write it as section.key=value".to_owned())
}

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (text, code) = match failure {
                Failure::Usage(text) => (text, 2),
                Failure::Work(error) => (format!("vigie: {error:#}\n"), 1),
                Failure::Verdict(code) => (String::new(), code),
            };
            // Nowhere is left to report that standard error is closed.
            let _ = std::io::stderr().write_all(text.as_bytes());
            ExitCode::from(code)
        }
    }
}

pub(crate) enum Failure {
    /// The arguments or the configuration: the text says what to change.
    Usage(String),
    /// It did not work.
    Work(anyhow::Error),
    /// It worked and was said; the code is part of the answer.
    Verdict(u8),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Work(error.into())
    }
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(up) => self::up(up, None),
        Command::Run { role, up } => self::up(up, Some(role)),
        Command::Topics(topics) => topics.run(),
        Command::RedisKey {
            customer,
            workspace,
            settings,
        } => {
            let config = load(sources(settings, Vec::new()))?;
            let wrong = |error: String| Failure::Usage(format!("vigie: {error}\n"));
            let person = match customer.strip_prefix("anonymous:") {
                Some(id) => PersonId::anonymous(id),
                None => PersonId::known(&customer),
            };
            let person = person.map_err(|error| wrong(error.to_string()))?;
            let workspace = Workspace::new(&workspace).map_err(|error| wrong(error.to_string()))?;
            let key = CustomerKey::new(workspace, person);
            let key = vigie_store::redis_key(&config.redis.namespace, config.log.partitions, &key);
            print(&format!("{key}\n"))
        }
        Command::Demo(demo) => self::demo(&demo),
        Command::Config(ConfigCommand::Check { file, settings }) => {
            let sources = sources(
                Settings {
                    config: file.or(settings.config),
                    settings: settings.settings,
                },
                Vec::new(),
            );
            print(&commands::check(sources).map_err(|errors| Failure::Usage(errors.to_string()))?)
        }
        Command::Config(ConfigCommand::Show {
            settings,
            origin,
            output,
        }) => {
            let options = ShowOptions {
                origin,
                json: output.output == Format::Json,
            };
            print(
                &commands::show(sources(settings, Vec::new()), options)
                    .map_err(|errors| Failure::Usage(errors.to_string()))?,
            )
        }
        Command::DeadLetters(letters) => self::letters(letters),
        Command::Privacy(rights) => rights.run(),
        Command::Links(links) => links.run(),
        Command::Deliveries(commands) => commands.run(),
        Command::Books { remote } => {
            let books = Remote::new(&remote.url, &remote.key).get("/v1/books")?;
            print(&if remote.output.output == Format::Json {
                pretty(&books)
            } else {
                client::table(&books)
            })
        }
        Command::Model(commands) => commands.run(),
        Command::Sql(sql) => sql.run(),
        Command::Explain(explain) => explain.run(),
        Command::Audit(audit) => audit.run(),
        Command::Rebuild(rebuild) => rebuild.run(),
        Command::Replay(replay) => crate::replay::replay(&replay),
        Command::Import(import) => import.run(),
        Command::Report(report) => report.run(),
        Command::Policy(policy) => policy.run(),
        Command::Fit(fit) => fit.run(),
        Command::Backtest(backtest) => backtest.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Status(status) => status.run(),
        Command::Backup(backup) => backup.run(),
        Command::Restore(restore) => restore.run(),
        Command::Healthcheck { url } => {
            let (ready, text) = Remote::new(&url, "").ready()?;
            print(&text)?;
            if ready {
                Ok(())
            } else {
                Err(anyhow!("not ready").into())
            }
        }
        Command::Version { output } => {
            let version = env!("CARGO_PKG_VERSION");
            let revision = option_env!("VIGIE_REVISION");
            print(&match output.output {
                Format::Text => format!("vigie {version}\n"),
                Format::Json => pretty(&serde_json::json!({"version": version, "revision": revision})),
            })
        }
    }
}

pub(crate) fn sources(settings: Settings, mut flags: Vec<(String, String)>) -> ConfigSources {
    flags.extend(settings.settings);
    ConfigSources::of_process(settings.config, flags)
}

pub(crate) fn load(sources: ConfigSources) -> Result<Config, Failure> {
    config::load(sources).map_err(|errors| Failure::Usage(errors.to_string()))
}

fn up(up: Up, roles: Option<Vec<Role>>) -> Result<(), Failure> {
    let mut flags = Vec::new();
    if let Some(dir) = &up.data_dir {
        flags.push(("data.dir".to_owned(), dir.display().to_string()));
    }
    if let Some(listen) = up.listen {
        flags.push(("server.listen".to_owned(), listen.to_string()));
    }
    let config = load(sources(up.settings, flags))?;
    let roles = match roles {
        None => Roles::all(),
        Some(roles) => Roles::some(roles, &config).map_err(|error| Failure::Usage(format!("vigie: {error:#}\n")))?,
    };
    vigie_telemetry::logging::install(config.log_output.format, config.log_output.level.as_str())?;
    runtime()?.block_on(async {
        let mut stop = StopSignal::new()?;
        let running = tokio::select! {
            running = server::start(&config, clocks::wall(), &roles) => running?,
            () = stop.received() => return Ok(()),
        };
        print(&started(&running, up.output.output))?;
        tokio::select! {
            () = stop.received() => {
                tracing::info!("stopping: no new connections, what was accepted is finished");
                running.stop().await?;
                Ok(())
            }
            reason = running.failed() => Err(anyhow!("{reason}; restart to recover from the disk").into()),
        }
    })
}

fn demo(options: &Demo) -> Result<(), Failure> {
    let temporary = if options.data_dir.is_none() {
        Some(tempfile::tempdir()?)
    } else {
        None
    };
    let dir = options
        .data_dir
        .clone()
        .or_else(|| temporary.as_ref().map(|dir| dir.path().to_owned()))
        .unwrap_or_default();
    let flags = vec![
        ("data.dir".to_owned(), dir.display().to_string()),
        ("server.listen".to_owned(), format!("127.0.0.1:{}", options.port)),
        ("log-output.level".to_owned(), "warn".to_owned()),
    ];
    let config = load(ConfigSources {
        file: None,
        environment: Vec::new(),
        flags,
    })?;
    vigie_telemetry::logging::install(config.log_output.format, config.log_output.level.as_str())?;
    runtime()?.block_on(async {
        let mut stop = StopSignal::new()?;
        let play = demo::Play {
            data: options.data,
            seed: options.seed,
            customers: options.customers,
            once: options.once,
        };
        let stream = demo::Stream::open(&play, clocks::now())?;
        let running = server::start(&config, stream.clock(), &Roles::all()).await?;
        let outcome = tokio::select! {
            () = stop.received() => Ok(()),
            outcome = stream.play(&running, &play) => outcome,
            reason = running.failed() => Err(anyhow!(reason)),
        };
        running.stop().await?;
        outcome.map_err(Into::into)
    })
}

fn letters(letters: Letters) -> Result<(), Failure> {
    let (remote, answer) = match letters {
        Letters::List { remote, limit, cursor } => {
            let cursor = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
            let answer =
                Remote::new(&remote.url, &remote.key).get(&format!("/v1/dead-letters?limit={limit}{cursor}"))?;
            (remote, answer)
        }
        Letters::Show { id, remote } => {
            let answer = Remote::new(&remote.url, &remote.key).get(&format!("/v1/dead-letters/{id}"))?;
            (remote, answer)
        }
        Letters::Retry { id, remote } => {
            let answer = Remote::new(&remote.url, &remote.key).post(&format!("/v1/dead-letters/{id}/retry"))?;
            (remote, answer)
        }
    };
    print(&if remote.output.output == Format::Json {
        pretty(&answer)
    } else {
        client::table(&answer)
    })
}

fn started(running: &server::Running, format: Format) -> String {
    let keys = running.keys.as_ref();
    if format == Format::Json {
        let line = serde_json::json!({
            "url": running.url,
            "admin_url": running.admin_url,
            "keys": keys.map(|(keys, _)| keys),
        });
        return format!("{line}\n");
    }
    let mut text = format!("vigie is up at {}\n", running.url);
    if let Some(admin) = &running.admin_url {
        text += &format!("metrics at {admin}/metrics\n");
    }
    match keys {
        None => {}
        // What is printed elsewhere ends up in a log, where no key belongs.
        Some((_, path)) if !std::io::stdout().is_terminal() => text += &format!("keys are in {}\n", path.display()),
        Some((keys, path)) => {
            text += &format!(
                "keys of workspace {:?} (kept in {}):\n  write {}\n  read  {}\n  admin {}\n",
                keys.workspace,
                path.display(),
                keys.write,
                keys.read,
                keys.admin
            );
            text += &format!(
                "\nfirst event:\n  curl {url}/v1/events -H 'Authorization: Bearer {write}' -H 'Content-Type: application/json' \\\n    -d '{{\"user_id\":\"ann\",\"signal\":\"purchase\",\"money\":{{\"amount\":40,\"currency\":\"EUR\"}}}}'\n  curl {url}/v1/customers/ann -H 'Authorization: Bearer {read}'\n",
                url = running.url,
                write = keys.write,
                read = keys.read
            );
        }
    }
    text
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

/// Writes to standard output; a reader that went away (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

pub(crate) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// The signals that ask the process to stop.
struct StopSignal {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl StopSignal {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent_and_every_command_says_what_it_does() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        let mut stack: Vec<&clap::Command> = vec![&command];
        while let Some(command) = stack.pop() {
            assert!(
                command.get_about().is_some(),
                "{} has no description",
                command.get_name()
            );
            stack.extend(command.get_subcommands().filter(|sub| sub.get_name() != "help"));
        }
    }
}
