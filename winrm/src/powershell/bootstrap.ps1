$ProgressPreference='SilentlyContinue'
[Console]::OutputEncoding=New-Object System.Text.UTF8Encoding $false
$OutputEncoding=[Console]::OutputEncoding
$global:LictorStatus=$true
$global:LASTEXITCODE=0
$LictorExit=''
$LictorLines=@([Console]::In.ReadToEnd().Split([char]10)|ForEach-Object{$_.Trim()})
$LictorValues=@($LictorLines|Where-Object{$_.StartsWith(':')}|ForEach-Object{[Text.Encoding]::UTF8.GetString([Convert]::FromBase64String($_.Substring(1)))})
$LictorArguments=@($LictorValues|Select-Object -Skip 1)
$LictorNames=@($LictorLines|Where-Object{$_.StartsWith('?')}|ForEach-Object{$_.Substring(1)})
$LictorMark=-join @($LictorLines|Where-Object{$_.StartsWith('=')}|ForEach-Object{$_.Substring(1)})
$LictorLines=$null
try{
. ([ScriptBlock]::Create($LictorValues[0]+"`r`n`r`n"+'$global:LictorStatus=$?')) @LictorArguments
$LictorExit=0
if(!$global:LictorStatus){if($LASTEXITCODE){$LictorExit=$LASTEXITCODE}else{$LictorExit=1}}
}catch{
$LictorExit=1
$Host.UI.WriteErrorLine(($_|Out-String -Width 4096).TrimEnd())
}finally{
if($LictorMark){
$LictorText=New-Object System.Text.StringBuilder
for($LictorIndex=0;$LictorIndex -lt $LictorNames.Count;$LictorIndex++){
$LictorState='-'
try{
$LictorVariable=$ExecutionContext.SessionState.PSVariable.Get($LictorNames[$LictorIndex])
if($LictorVariable){$LictorValue="$($LictorVariable.Value)"}else{$LictorValue=[Environment]::GetEnvironmentVariable($LictorNames[$LictorIndex])}
if($LictorVariable -or $LictorValue){
$LictorBytes=[Text.Encoding]::UTF8.GetBytes($LictorValue)
if($LictorBytes.Length -gt 65536){$LictorState='!'}else{$LictorState='+'+[Convert]::ToBase64String($LictorBytes)}
}
}catch{$LictorState='!'}
[void]$LictorText.Append($LictorMark+$LictorIndex+$LictorState+"`n")
}
[void]$LictorText.Append($LictorMark+'x'+$LictorExit+"`n"+$LictorMark+".`n")
[Console]::Out.Write($LictorText.ToString())
[Console]::Out.Flush()
}
}
exit $LictorExit
