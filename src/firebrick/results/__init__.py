"""What jobs keep on the host: the artifact and cache services that GitHub's own clients speak.

grant     what one job may do, as a token it carries      token.py, scope.py, link.py
upload    bytes on their way in, block by block           upload.py
blob      bytes that are kept, by digest                  blob.py
artifact  what a run leaves behind                        artifact.py
cache     what later runs may find again                  cache.py
app       the protocols over these, as HTTP               app.py and the modules it names
serve     the app on a unix socket                        serve.py
"""
