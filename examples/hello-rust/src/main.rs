//! A greeting over HTTP: config from the environment, lines to stdout, a clean end at SIGTERM.

use std::sync::Arc;
use std::{env, thread};

use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;
use tiny_http::{Response, Server};

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let port: u16 = env::var("PORT").map_err(|_| "PORT is not set")?.parse()?;
    let greeting = env::var("GREETING").unwrap_or_else(|_| "Hello from Rust".to_owned());

    let mut signals = Signals::new([SIGTERM])?;
    let server = Arc::new(Server::http(("0.0.0.0", port))?);
    println!("listening on {port}");

    let stopper = Arc::clone(&server);
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            println!("stopping");
            stopper.unblock();
        }
    });

    // Ends at `unblock`; the request in hand has been answered by then.
    for request in server.incoming_requests() {
        println!("{} {}", request.method(), request.url());
        if let Err(error) = request.respond(Response::from_string(format!("{greeting}\n"))) {
            println!("the client went away: {error}");
        }
    }
    Ok(())
}
