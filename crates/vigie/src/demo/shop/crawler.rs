//! Machines that read the shop's pages: search engines, a price scraper. They come without cookies, so each visit is a new
//! anonymous id; their user agents tell what they are.

use super::acts::{Act, Outbox};
use crate::demo::dice::Dice;
use vigie_event::{Day, Signal};

const AGENTS: [&str; 5] = [
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
    "python-requests/2.32.3",
];
/// Chance that a crawler comes on a given day.
const COMES: f64 = 0.3;
/// Streams from here on belong to crawlers; people count from 0.
const FIRST_STREAM: u64 = 1 << 40;

/// One machine.
pub(super) struct Crawler {
    agent: &'static str,
    dice: Dice,
}

impl Crawler {
    pub(super) fn new(seed: u64, index: u32) -> Self {
        let mut dice = Dice::new(seed, FIRST_STREAM + u64::from(index));
        Self {
            agent: dice.pick(&AGENTS),
            dice,
        }
    }

    /// Perhaps reads a dozen pages, one every second or two.
    pub(super) fn crawl(&mut self, day: Day, outbox: &mut Outbox) {
        if !self.dice.chance(COMES) {
            return;
        }
        let visitor = format!("{:016x}", self.dice.bits());
        let mut at = day.start().plus_ms(self.dice.whole(0, 86_000_000));
        for page in 0..self.dice.whole(6, 20) {
            at = at.plus_ms(self.dice.whole(700, 2_000));
            let product = self.dice.whole(1, 400);
            let url = format!("https://shop.example/p/{product}");
            let mut act = Act::new(format!("{visitor}-{page}"), Signal::ProductView, at).seen_on(self.agent, Some(url));
            act.anonymous_id = Some(visitor.clone());
            outbox.send(&act, &mut self.dice);
        }
    }
}
