use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use super::*;

/// Gives each request the next of these answers, on a connection of its own, or closes that at status
/// 0: what was asked.
fn server(answers: Vec<(u16, String)>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = thread::spawn(move || {
        let answer = |(status, body): (u16, String)| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 1024];
            let count = stream.read(&mut asked).unwrap();
            let asked = String::from_utf8_lossy(&asked[..count]);
            let asked = asked.lines().next().unwrap_or_default().to_owned();
            if status == 0 {
                return asked;
            }
            let length = body.len();
            let head =
                format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close");
            stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
            asked
        };
        answers.into_iter().map(answer).collect()
    });
    (url, served)
}

fn problem(code: Code) -> (u16, String) {
    let problem = Problem::new(code, "x");
    (problem.status, serde_json::to_string(&problem).unwrap())
}

#[test]
fn a_platform_that_is_stopping_is_asked_again() {
    let answers = vec![problem(Code::Stopping), problem(Code::Stopping), (200, "7".to_owned())];
    let (url, served) = server(answers);
    let client = Client::new(&url, None);
    assert_eq!(client.send::<u32>("POST", "/v1/x", &1).unwrap(), 7);
    assert_eq!(served.join().unwrap(), ["POST /v1/x HTTP/1.1"; 3]);
}

#[test]
fn a_connection_that_is_closed_without_an_answer_is_made_once_more_for_a_look_alone() {
    let closed = || (0, String::new());
    let (url, served) = server(vec![closed(), (200, "7".to_owned())]);
    assert_eq!(Client::new(&url, None).get::<u32>("/v1/x").unwrap(), 7);
    assert_eq!(served.join().unwrap().len(), 2);
    let (url, served) = server(vec![closed(), closed()]);
    assert!(Client::new(&url, None).get::<u32>("/v1/x").unwrap_err().may_come_back());
    assert_eq!(served.join().unwrap().len(), 2);
    let (url, served) = server(vec![closed()]);
    assert!(Client::new(&url, None).send::<u32>("POST", "/v1/x", &1).unwrap_err().may_come_back());
    assert_eq!(served.join().unwrap(), ["POST /v1/x HTTP/1.1"]);
}

#[test]
fn any_other_problem_is_an_answer() {
    let (url, served) = server(vec![problem(Code::Unavailable)]);
    let asked = Client::new(&url, None).get::<u32>("/v1/x");
    let Err(Error::Problem(problem)) = asked else { panic!("{asked:?}") };
    assert_eq!(problem.code, Code::Unavailable);
    assert_eq!(served.join().unwrap().len(), 1);
}
