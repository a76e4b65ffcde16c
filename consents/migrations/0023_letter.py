from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("consents", "0022_upload_total")]

    operations = [
        migrations.AlterField(
            model_name="escalation",
            name="step",
            field=models.CharField(
                choices=[
                    ("letter", "업무함에서 기다린다고 담당자에게 편지로 알림"),
                    ("not_sent", "1분이 지나도 전하지 못함"),
                    ("duty_contact", "담당자에게 다른 길로 알림"),
                    ("not_received", "하루가 지나도 받았다는 답이 없음"),
                    ("not_stopped", "하루가 지나도 멈췄다는 답이 없음"),
                    ("not_erased", "기한이 지나도 지웠다는 증거가 없음"),
                    ("dead", "정해진 만큼 다시 보냈지만 전하지 못함"),
                ],
                max_length=12,
            ),
        ),
    ]
