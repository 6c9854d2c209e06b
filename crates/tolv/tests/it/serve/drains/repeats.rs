//! What is sent again after stops, upgrades and kills.

use super::*;

fn chatter() -> Shop {
    let shop = Shop::new("web: python3 chatter.py\n", &[]);
    std::fs::write(shop.dir.join("chatter.py"), CHATTER).unwrap();
    git::commit(&shop.dir);
    shop.pushed(&["tolv", "main"]);
    shop
}

/// The messages that a receiver got, with those that it got again.
fn all_of(receiver: &Receiver) -> Vec<String> {
    let bodies = receiver.requests().into_iter().map(|request| request.body);
    receiver.connections().into_iter().chain(bodies).flat_map(|bytes| split(&bytes)).collect()
}

/// Lets the app talk, does something to the platform several times meanwhile, and waits until the
/// receiver has every line; how many came again, and what the drain says of that.
fn repeats(
    shop: &mut Shop,
    receiver: &Receiver,
    id: &str,
    times: usize,
    disturb: impl Fn(&mut Shop),
) -> (usize, usize) {
    const LINES: usize = 50_000;
    shop.text("shop.localhost", &format!("/chat?count={LINES}"));
    let got = || said(&all_of(receiver), "chat").len();
    for time in 1..=times {
        poll(LATE, "lines come", || (got() >= LINES / (times + 1) * time).then_some(()));
        disturb(shop);
    }
    poll(LATE, "every line is there", || (got() == LINES).then_some(()));
    let drain = until_sent(shop, id);
    let messages = all_of(receiver);
    let chat = messages.iter().filter(|message| message.contains("says chat "));
    (chat.count() - LINES, number(&drain, "retried"))
}

/// Of each kind that says in its own way what it has; that over TCP says nothing at all.
fn receivers() -> [(Receiver, &'static str); 2] {
    let silent = Receiver::tcp(false);
    silent.answer("hold");
    [(silent, "syslog"), (Receiver::http(false), "http")]
}

#[test]
fn an_upgrade_sends_next_to_nothing_again_and_says_what() {
    for (receiver, scheme) in receivers() {
        let mut shop = chatter();
        let id = add(&shop, &format!("{scheme}://127.0.0.1:{}", receiver.port()));
        let (again, counted) = repeats(&mut shop, &receiver, &id, 3, |shop| {
            assert!(shop.serve.upgrade(|_| {}).success());
        });
        assert!(again <= counted && counted < 1_000, "{again} came again, {counted} counted");
    }
}

#[test]
fn a_stop_sends_nothing_again() {
    let mut shop = talker(&[]);
    for (receiver, scheme) in receivers() {
        let id = add(&shop, &format!("{scheme}://127.0.0.1:{}", receiver.port()));
        let word = scheme;
        say(&shop, word, 30_000);
        poll(SOON, "lines come", || (!said(&all_of(&receiver), word).is_empty()).then_some(()));
        shop.serve.end(Signal::TERM);
        shop.serve.begin();
        until_text(&shop, "shop.localhost", "ok");
        poll(LATE, "all is there", || {
            (said(&all_of(&receiver), word).len() == 30_000).then_some(())
        });
        let drain = until_sent(&shop, &id);
        let messages = all_of(&receiver);
        let again = messages.iter().filter(|message| message.contains("says ")).count() - 30_000;
        let counted = number(&drain, "retried");
        assert!(again <= counted && counted < 1_000, "{again} came again, {counted} counted");
        shop.tolv(&["drains", "remove", &id]);
    }
}

#[test]
fn kills_in_close_succession_send_little_again_and_say_how_much() {
    for (receiver, scheme) in receivers() {
        let mut shop = chatter();
        let id = add(&shop, &format!("{scheme}://127.0.0.1:{}", receiver.port()));
        let (again, counted) = repeats(&mut shop, &receiver, &id, 6, |shop| {
            shop.serve.end(Signal::KILL);
            shop.serve.begin();
        });
        assert!(again <= counted, "{again} lines came again, {counted} counted");
        assert!(counted < 10_000, "{counted} of 50000 lines were sent again");
    }
}

#[test]
fn what_a_receiver_that_ended_with_the_platform_may_not_have_read_is_sent_again() {
    let mut shop = talker(&[]);
    let mut receiver = Receiver::tcp(false);
    receiver.answer("hold");
    let id = add(&shop, &format!("syslog://127.0.0.1:{}", receiver.port()));
    say(&shop, "read", 2_000);
    let got = |receiver: &Receiver, word: &str| {
        let messages = all_of(receiver);
        let mark = format!("says {word} ");
        let count = messages.iter().filter(|message| message.contains(&mark)).count();
        (count, said(&messages, word).len())
    };
    poll(SOON, "lines come", || (got(&receiver, "read") == (2_000, 2_000)).then_some(()));
    shop.serve.end(Signal::KILL);
    receiver.kill();
    shop.serve.begin();
    poll(SOON, "the failure shows", || (drain(&shop, &id)["state"] == "failing").then_some(()));
    receiver.begin();
    until_text(&shop, "shop.localhost", "ok");
    say(&shop, "last", 10);
    poll(LATE, "the last come", || (got(&receiver, "last").1 == 10).then_some(()));
    let drain = until_sent(&shop, &id);
    assert_eq!(got(&receiver, "read"), (4_000, 2_000), "{drain}");
    let all = all_of(&receiver);
    let unique: BTreeSet<_> = all.iter().collect();
    assert_eq!(number(&drain, "retried"), all.len() - unique.len(), "{drain}");
}
