"""A program for machines, which describes its machine by HTTP, and echoes by HTTP and UDP."""

SERVER = """
import http.server, json, os, signal, socket, socketserver, sys, threading, time

class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        facts = {
            "argv": sys.argv, "env": dict(os.environ), "cwd": os.getcwd(), "host": socket.gethostname(),
            "cpus": os.cpu_count(), "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        }
        body = json.dumps(facts).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        size = self.headers["Content-Length"]
        self.send_response(200)
        self.send_header("Content-Length", size)
        self.end_headers()
        self.wfile.write(self.rfile.read(int(size)).upper())

class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        data, sock = self.request
        sock.sendto(data.upper(), self.client_address)

def bye(*_):
    print("bye", flush=True)
    os._exit(5)

signal.signal(signal.SIGTERM, bye)
threading.Thread(target=socketserver.UDPServer(("", 9000), Echo).serve_forever, daemon=True).start()
server = http.server.ThreadingHTTPServer(("", 8000), Handler)
print("serving", flush=True)
print("to stderr", file=sys.stderr, flush=True)
server.serve_forever()
"""
