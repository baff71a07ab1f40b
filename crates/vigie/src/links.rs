//! `vigie links sign`: the links of one mail to one person, signed with the keys of the configuration, without a server. A
//! server with the same keys follows them.

use crate::cli::{Failure, Format, Output, Settings, load, print, sources};
use crate::clocks;
use crate::doors;
use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use serde_json::json;
use vigie_event::{PersonId, Workspace};
use vigie_ingestion::links::Target;
use vigie_ingestion::protocol::email_id;

/// What can be done with links.
#[derive(Debug, Subcommand)]
pub(crate) enum Links {
    /// Sign the links of one mail to one person: clicks, unsubscription and open pixel
    Sign(Box<Sign>),
}

#[derive(Debug, Args)]
pub(crate) struct Sign {
    #[command(flatten)]
    settings: Settings,
    /// Whose customer it is
    #[arg(long)]
    workspace: String,
    #[command(flatten)]
    person: Person,
    /// The mail, by your own id of it
    #[arg(long)]
    message: String,
    /// The campaign that the mail belongs to
    #[arg(long, default_value = "")]
    campaign: String,
    /// An address that a link of the mail leads to; may be repeated
    #[arg(long = "click", value_name = "URL")]
    clicks: Vec<String>,
    /// A pixel that reports the opening: only for people who agreed to that
    #[arg(long)]
    open: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Person {
    /// The customer's id
    #[arg(long)]
    user: Option<String>,
    /// A visitor's id
    #[arg(long)]
    anonymous: Option<String>,
    /// An e-mail address; only its hash becomes a part of the links
    #[arg(long)]
    email: Option<String>,
}

impl Person {
    fn id(&self) -> anyhow::Result<PersonId> {
        let id = match (&self.user, &self.anonymous, &self.email) {
            (Some(user), _, _) => PersonId::known(user),
            (_, Some(anonymous), _) => PersonId::anonymous(anonymous),
            (_, _, Some(email)) => PersonId::anonymous(&email_id(email)),
            (None, None, None) => return Err(anyhow!("say who: --user, --anonymous or --email")),
        };
        id.map_err(|error| anyhow!("the person's id: {error}"))
    }
}

impl Links {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let Self::Sign(sign) = self;
        let config = load(sources(sign.settings, Vec::new()))?;
        let links = doors::links(&config)?.ok_or_else(|| {
            Failure::Usage("no key signs links: configure a [[link-keys]] and links.public-url\n".to_owned())
        })?;
        let workspace = Workspace::new(&sign.workspace).map_err(|error| anyhow!("the workspace: {error}"))?;
        let (person, now) = (sign.person.id()?, clocks::now());
        let mint = |target: Target| links.mint(&workspace, &person, &sign.message, &sign.campaign, target, now);
        let mut clicks = Vec::new();
        for to in &sign.clicks {
            clicks.push(mint(Target::Click(to.clone())).with_context(|| format!("--click {to}"))?);
        }
        let open = if sign.open { Some(mint(Target::Open)?) } else { None };
        let unsubscribe = mint(Target::Unsubscribe)?;
        if sign.output.output == Format::Json {
            let headers = json!({
                "List-Unsubscribe": format!("<{unsubscribe}>"),
                "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            });
            let links = json!({"clicks": clicks, "open": open, "unsubscribe": unsubscribe, "headers": headers});
            return print(&format!("{links:#}\n"));
        }
        let mut text: String = clicks.iter().map(|link| format!("click        {link}\n")).collect();
        text.extend(open.map(|link| format!("open         {link}\n")));
        text += &format!("unsubscribe  {unsubscribe}\n");
        print(&text)
    }
}
