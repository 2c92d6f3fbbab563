"""Sends a mail and answers when it is sent. `send-email-background` does the same without the wait.

curl -d '{"to": "ada@example.org", "subject": "Hi", "text": "Hello, Ada."}' \
     -H content-type:application/json localhost:8888/.netlify/functions/send-email

How the mail goes out is said in `mailer/`: by SMTP_URL, by SENDGRID_API_KEY, else into a folder.
"""

import json

# A folder without a function file of its own name is no function, so functions can share it.
from mailer import BadMail, Refused, TryLater, read_mail, send


def handler(event, context):
    try:
        message = send(read_mail(event, context))
    except BadMail as error:
        return answer(400, {"error": str(error)})
    except Refused as error:
        return answer(502, {"error": str(error)})
    except TryLater as error:
        return answer(503, {"error": str(error)}, {"retry-after": str(error.delay_s)})
    print(message)
    return answer(200, {"message": message})


def answer(status, content, headers=None):
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json", **(headers or {})},
        "body": json.dumps(content),
    }
