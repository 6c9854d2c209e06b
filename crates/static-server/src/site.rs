//! A folder and what it answers to a request. Blocks: files are opened and small ones read here.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use http_body_util::{Either, Full};
use hyper::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HOST,
    HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED, LOCATION,
};
use hyper::{Method, Response, StatusCode, Uri};
use rustix::fs::OFlags;
use tolv_model::static_json::{Redirect, StaticJson};

use crate::body::{Body, FileBody, PIECE, read};
use crate::conditions::{Validators, Verdict, judge};
use crate::content_type;
use crate::target::{Refused, Target, is_hidden};

const INDEX: &str = "index.html";
const NOT_FOUND: &str = "404.html";

/// The folder that is served.
pub(crate) struct Site {
    /// Without a symlink in it.
    root: PathBuf,
    /// What `static.json` says.
    rules: StaticJson,
}

/// What a path leads to.
enum Found {
    File(Page),
    Folder,
    /// Nothing, or nothing that may be served.
    Nothing,
}

/// A regular file, open.
struct Page {
    file: File,
    meta: Metadata,
    content_type: &'static str,
}

impl Site {
    pub(crate) fn open(root: &Path, rules: StaticJson) -> io::Result<Self> {
        let root = root.canonicalize()?;
        fs::read_dir(&root)?;
        Ok(Self { root, rules })
    }

    /// Answers a request.
    pub(crate) fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Response<Body> {
        if let Some(redirect) = self.to_https(uri, headers) {
            return redirect;
        }
        let get = match *method {
            Method::GET => true,
            Method::HEAD => false,
            _ => {
                let mut response = plain(StatusCode::METHOD_NOT_ALLOWED);
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                return response;
            }
        };
        let target = match Target::parse(uri.path()) {
            Ok(target) => target,
            Err(Refused::Malformed) => return plain(StatusCode::BAD_REQUEST),
            Err(Refused::Nowhere) => return self.error(StatusCode::NOT_FOUND, get),
        };
        let path = target.as_text();
        let mut response = match self.lookup(&target, &path, uri, headers, get) {
            Ok(Some(response)) => response,
            Ok(None) => self.error(StatusCode::NOT_FOUND, get),
            Err(_) => self.error(StatusCode::INTERNAL_SERVER_ERROR, get),
        };
        let is_error = response.status().is_client_error() || response.status().is_server_error();
        for (name, value) in self.rules.headers(&path) {
            let named = HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value).ok());
            // An error is not to be kept for as long as the file that is missing.
            if let Some((name, value)) =
                named.filter(|(name, _)| !is_error || name != CACHE_CONTROL)
            {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }

    /// The redirect to HTTPS, where only that is wanted and the router says that it is not that. A
    /// request that no router has forwarded says nothing.
    fn to_https(&self, uri: &Uri, headers: &HeaderMap) -> Option<Response<Body>> {
        let scheme = headers.get("x-forwarded-proto").filter(|_| self.rules.https_only)?;
        if scheme.as_bytes().eq_ignore_ascii_case(b"https") {
            return None;
        }
        let host = headers.get(HOST)?.to_str().ok()?;
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            Some(_) | None => host,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let location = HeaderValue::try_from(format!("https://{name}{path}")).ok()?;
        let mut response = plain(StatusCode::MOVED_PERMANENTLY);
        response.headers_mut().insert(LOCATION, location);
        Some(response)
    }

    /// What is at the target; nothing if nothing is.
    fn lookup(
        &self,
        target: &Target,
        path: &str,
        uri: &Uri,
        headers: &HeaderMap,
        get: bool,
    ) -> io::Result<Option<Response<Body>>> {
        if let Some(page) = self.clean(target)? {
            return page.answer(headers, get).map(Some);
        }
        let index = target.path.join(INDEX);
        match self.find(if target.folder { &index } else { &target.path })? {
            Found::File(file) => return file.answer(headers, get).map(Some),
            Found::Folder if !target.folder => {
                if let Found::File(_) = self.find(&index)? {
                    return Ok(redirect(target, uri));
                }
            }
            Found::Folder | Found::Nothing => {}
        }
        if let Some(file) = self.rules.route(path)
            && let Found::File(page) = self.find(Path::new(file))?
        {
            return page.answer(headers, get).map(Some);
        }
        Ok(self.rules.redirect(path).and_then(|Redirect { url, status }| {
            let mut response = plain(StatusCode::from_u16(*status).ok()?);
            response.headers_mut().insert(LOCATION, HeaderValue::try_from(url.as_str()).ok()?);
            Some(response)
        }))
    }

    /// `about.html` for `/about`, where that is wanted.
    fn clean(&self, target: &Target) -> io::Result<Option<Page>> {
        let Some(name) = target.path.file_name().filter(|_| self.rules.clean_urls) else {
            return Ok(None);
        };
        if target.folder {
            return Ok(None);
        }
        let mut name = name.to_owned();
        name.push(".html");
        Ok(match self.find(&target.path.with_file_name(name))? {
            Found::File(page) => Some(page),
            Found::Folder | Found::Nothing => None,
        })
    }

    fn error(&self, status: StatusCode, get: bool) -> Response<Body> {
        let own = self.rules.error_page.as_deref().map(|page| page.trim_start_matches('/'));
        let usual = (status == StatusCode::NOT_FOUND).then_some(NOT_FOUND);
        let page = own.into_iter().chain(usual).find_map(|page| match self.find(Path::new(page)) {
            Ok(Found::File(page)) => page.send_all(status, get).ok(),
            Ok(Found::Folder | Found::Nothing) | Err(_) => None,
        });
        page.unwrap_or_else(|| plain(status))
    }

    /// Where a path leads in the end; nothing if that is not there or may not be served.
    fn real(&self, relative: &Path) -> io::Result<Option<PathBuf>> {
        let real = match self.root.join(relative).canonicalize() {
            Ok(real) => real,
            Err(error) if is_absence(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let inside = real.strip_prefix(&self.root).is_ok_and(|relative| !is_hidden(relative));
        Ok(inside.then_some(real))
    }

    /// Opens what a path leads to.
    fn find(&self, relative: &Path) -> io::Result<Found> {
        let Some(real) = self.real(relative)? else { return Ok(Found::Nothing) };
        // Nothing is followed any more, and a named pipe is not waited for.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&real) {
            Ok(file) => file,
            Err(error) if is_absence(&error) => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        let meta = file.metadata()?;
        Ok(if meta.is_file() {
            // By the name that was asked for: what a link leads to may be called anything.
            Found::File(Page { file, meta, content_type: content_type::of(relative) })
        } else if meta.is_dir() {
            Found::Folder
        } else {
            Found::Nothing
        })
    }
}

/// Whether an error means that there is nothing to serve. What may not be read is not there.
fn is_absence(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound, PermissionDenied};
    let socket = rustix::io::Errno::NXIO.raw_os_error();
    let links = rustix::io::Errno::LOOP.raw_os_error();
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied | InvalidFilename)
        || error.raw_os_error().is_some_and(|code| code == links || code == socket)
}

impl Page {
    /// Answers a request for the file itself.
    fn answer(self, headers: &HeaderMap, get: bool) -> io::Result<Response<Body>> {
        let length = self.meta.len();
        let validators = Validators::of(&self.meta, SystemTime::now());
        let mut response = match judge(headers, &validators, length, get) {
            Verdict::Whole => self.send_all(StatusCode::OK, get)?,
            Verdict::Part(start, end) => {
                let mut response = self.send(StatusCode::PARTIAL_CONTENT, start, end, get)?;
                let range = format!("bytes {start}-{}/{length}", end - 1);
                put(&mut response, CONTENT_RANGE, range);
                response
            }
            Verdict::NotModified => {
                respond(StatusCode::NOT_MODIFIED, Either::Left(Full::default()))
            }
            Verdict::Failed => return Ok(plain(StatusCode::PRECONDITION_FAILED)),
            Verdict::OutOfRange => {
                let mut response = plain(StatusCode::RANGE_NOT_SATISFIABLE);
                put(&mut response, CONTENT_RANGE, format!("bytes */{length}"));
                return Ok(response);
            }
        };
        response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        put(&mut response, ETAG, validators.etag);
        if let Some(modified) = validators.modified {
            put(&mut response, LAST_MODIFIED, modified);
        }
        Ok(response)
    }

    fn send_all(self, status: StatusCode, get: bool) -> io::Result<Response<Body>> {
        let length = self.meta.len();
        self.send(status, 0, length, get)
    }

    /// Sends the bytes from `start` to before `end`; of a HEAD request, their headers.
    fn send(
        self,
        status: StatusCode,
        start: u64,
        end: u64,
        get: bool,
    ) -> io::Result<Response<Body>> {
        let length = end - start;
        let body = match usize::try_from(length) {
            _ if !get => Either::Left(Full::default()),
            Ok(length) if length <= PIECE => Either::Left(read(&self.file, start, length)?.into()),
            _ => Either::Right(FileBody::new(self.file, start, length)),
        };
        let mut response = respond(status, body);
        let content_type = HeaderValue::from_static(self.content_type);
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
        Ok(response)
    }
}

fn redirect(target: &Target, uri: &Uri) -> Option<Response<Body>> {
    let mut location = target.as_folder();
    if let Some(query) = uri.query() {
        location.extend(["?", query]);
    }
    let location = HeaderValue::try_from(location).ok()?;
    let mut response = plain(StatusCode::MOVED_PERMANENTLY);
    response.headers_mut().insert(LOCATION, location);
    Some(response)
}

/// An answer that says its status in words.
pub(crate) fn plain(status: StatusCode) -> Response<Body> {
    let mut response = respond(status, Either::Left(format!("{status}\n").into()));
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn respond(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn put(response: &mut Response<Body>, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}
