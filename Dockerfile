FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 HOST=0.0.0.0 PORT=8078
WORKDIR /app

# The engine's health check, and run.sh's: the image has no curl.
RUN printf '%s\n' '#!/usr/local/bin/python -IS' 'import http.client, os' \
    'service = http.client.HTTPConnection("127.0.0.1", int(os.environ["PORT"]), timeout=4)' \
    'service.request("GET", "/health")' \
    'raise SystemExit(service.getresponse().status != 200)' >/usr/local/bin/healthy && chmod +x /usr/local/bin/healthy

# Packages change seldom and code often: the code must not undo this layer.
COPY requirements.txt .
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore -r requirements.txt

# Whoever runs the image can read all of it and only put files into assets, so bytecode is compiled here. Only what needs
# it is touched: a touched file is in the image twice.
COPY . .
RUN find . \( ! -perm -444 -o -type d ! -perm -111 \) -exec chmod a+rX {} + && python -m compileall -q . && chown 10001:10001 assets

USER 10001:10001
EXPOSE 8078
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s CMD ["healthy"]
ENTRYPOINT ["python", "app.py"]
